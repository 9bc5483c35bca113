"""What Label Studio answers, as the backend keeps it."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from cdal.backend.label_studio.data import moment_of


@pytest.mark.parametrize(
    "given", ["2026-01-02T04:04:05+01:00", datetime(2026, 1, 2, 3, 4, 5, 0, UTC)]
)
def test_times_are_kept_in_utc(given: object) -> None:
    assert moment_of(given) == datetime(2026, 1, 2, 3, 4, 5)


def test_a_time_without_a_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert moment_of("2026-01-02T03:04:05") == datetime(2026, 1, 2, 3, 4, 5)
    time.tzset()


@pytest.mark.parametrize(
    "given",
    [
        None,
        5,
        "yesterday",
        "0001-01-01T00:00:00+14:00",  # before the first year in UTC
        "9999-12-31T23:59:59Z",  # nothing can be added to it
        datetime(9999, 12, 31, 23, 59, 59, 0, UTC),
    ],
)
def test_what_cannot_be_a_time_of_a_label_is_none(given: object) -> None:
    assert moment_of(given) is None
