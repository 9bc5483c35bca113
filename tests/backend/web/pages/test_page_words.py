"""How figures and times are written on the pages."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cdal.backend.store.tables import now
from cdal.backend.web.pages import wording


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "—"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (185, "3 min 5 s"),
        (3725, "1 h 2 min"),
    ],
)
def test_times(value: float | None, words: str) -> None:
    assert wording.seconds(value) == words


def test_how_long_ago() -> None:
    assert wording.ago(now()) == "just now"
    assert wording.ago(now() - timedelta(minutes=3)) == "3 minutes ago"
    assert wording.ago(now() - timedelta(hours=5)) == "5 hours ago"


def test_movement_needs_no_colour() -> None:
    assert [wording.moved(x) for x in (0.031, -0.2, 0.0001, None)] == [
        "up 0.031",
        "down 0.200",
        "unchanged",
        "",
    ]


def test_names_and_counts() -> None:
    assert [wording.metric_name(n) for n in ("map_50", "miou", "accuracy", None)] == [
        "mAP@0.5",
        "mIoU",
        "accuracy",
        "metric",
    ]
    assert (wording.count(1, "image"), wording.count(1200, "image")) == ("1 image", "1,200 images")
