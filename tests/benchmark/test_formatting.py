from __future__ import annotations

import pytest

from cdal.benchmark.report.formatting import (
    class_metric_name,
    duration,
    metric_name,
    probability,
)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, "–"),
        (0.00099, "< 0.001"),
        (0.001, "0.001"),
        (0.0312, "0.031"),
        (0.4567, "0.46"),
        (1.0, "1.00"),
    ],
)
def test_probability(p: float | None, text: str) -> None:
    assert probability(p) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.00123, "1.23 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (1, "1.0 s"),
        (99.94, "99.9 s"),
        (99.96, "100 s"),
        (1234.5, "1,234 s"),
        (36_000, "10.0 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_names_of_metrics() -> None:
    assert (metric_name("macro_f1"), class_metric_name("macro_f1")) == ("macro F1", "F1")
    assert (metric_name("accuracy"), class_metric_name("accuracy")) == (
        "accuracy",
        "share recognised",
    )
