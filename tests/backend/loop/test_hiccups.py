"""A database that is away for a moment ends no job; one that stays away does."""

from __future__ import annotations

import sqlite3

import pytest

from cdal.backend.loop import context
from cdal.backend.loop.context import Hiccups, Watch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets."""
    at = [0.0]
    monkeypatch.setattr(context.time, "monotonic", lambda: at[0])
    return at


def fail(passing: Hiccups) -> None:
    with passing:
        raise sqlite3.OperationalError("database is locked")


def test_what_fails_for_a_while_is_let_pass(clock: list[float]) -> None:
    passing = Hiccups()
    for clock[0] in (0, 100, 299):
        fail(passing)
    with passing:  # it is back
        pass
    for clock[0] in (400, 699):
        fail(passing)
    clock[0] = 700
    with pytest.raises(sqlite3.OperationalError):
        fail(passing)


def test_other_errors_are_no_hiccups() -> None:
    with pytest.raises(ZeroDivisionError), Hiccups():
        1 / 0  # noqa: B018


def test_a_job_goes_on_while_nobody_can_say_whether_it_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Away:
        def is_cancelled(self, _: int) -> bool:
            raise sqlite3.OperationalError("unable to open database file")

    watch = Watch(Away(), 1, lambda: False)  # type: ignore[arg-type]
    monkeypatch.setattr("cdal.backend.loop.context.LOOK_SECONDS", 0.0)
    assert not watch()
