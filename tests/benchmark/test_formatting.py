from __future__ import annotations

import pytest

from cdal.benchmark.report.formatting import duration, probability


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
    [(0, "0 ms"), (0.00123, "1.23 ms"), (1, "1.0 s"), (1234.5, "1,234 s"), (36_000, "10.0 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
