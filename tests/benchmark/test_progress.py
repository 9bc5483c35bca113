from __future__ import annotations

import io

import pytest

from cdal.benchmark import progress
from cdal.benchmark.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_the_time_left_is_that_of_the_work_left(clock: Clock) -> None:
    log = io.StringIO()
    reporter = Progress(work=10, stream=log)
    clock.now += 20
    reporter.finished("two", work=2)  # 10 seconds each, and 8 are left
    assert log.getvalue() == "two (20%, 80 s left)\n"


def test_what_is_not_work_is_foreseen_by_its_own_time(clock: Clock) -> None:
    log = io.StringIO()
    reporter = Progress(work=10, stream=log)
    clock.now += 30
    reporter.finished("two", work=2, beside=10, beside_left=5)  # 10 s each; 8 and 5 s left
    assert log.getvalue() == "two (20%, 85 s left)\n"


def test_a_log_has_no_moving_line(clock: Clock) -> None:
    log = io.StringIO()
    Progress(work=10, stream=log).under_way("training", 0.5, work=2)
    assert log.getvalue() == ""


def test_a_terminal_has_one_that_makes_way(clock: Clock) -> None:
    terminal = Terminal()
    reporter = Progress(work=10, stream=terminal)
    clock.now += 5
    reporter.under_way("training", 0.5, work=2)
    reporter.say("done")
    assert terminal.getvalue() == "\r\x1b[Ktraining: 50%, 45 s left\r\x1b[Kdone\n"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
