"""Requests begin at once unless they come too often."""

from __future__ import annotations

import pytest

from cdal.backend.jobs import rate_limit
from cdal.backend.jobs.rate_limit import Spacing


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [1000.0]
    monkeypatch.setattr(rate_limit.time, "monotonic", lambda: time[0])
    return time


def test_a_burst_begins_at_once_and_then_one_each_so_many_seconds(clock: list[float]) -> None:
    limit = Spacing(3, 10.0)
    assert [limit.delay("a") for _ in range(6)] == [0, 0, 0, 10, 20, 30]
    assert limit.delay("b") == 0  # each by itself
    clock[0] += 30
    assert limit.delay("a") == 10


def test_what_may_not_begin_now_is_not_counted(clock: list[float]) -> None:
    limit = Spacing(2, 10.0)
    assert [limit.permits("a") for _ in range(6)] == [True, True, *[False] * 4]
    assert limit.permits("b")
    clock[0] += 10
    assert [limit.permits("a") for _ in range(2)] == [True, False]


def test_after_a_pause_a_burst_is_free_again(clock: list[float]) -> None:
    limit = Spacing(3, 10.0)
    for _ in range(5):
        limit.delay("a")
    clock[0] += 1000
    assert [limit.delay("a") for _ in range(4)] == [0, 0, 0, 10]
