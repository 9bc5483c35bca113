"""While people label, several labels share one look; the last one that is due waits for nobody."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from cdal.backend.jobs import gathering
from cdal.backend.jobs.gathering import FAR, GATHER_S, Gathering
from cdal.backend.store.tables import Project

LOOKED_AT = datetime(2026, 1, 1, 12)


class Clock:
    def __init__(self) -> None:
        self.time = LOOKED_AT

    def __call__(self) -> datetime:
        return self.time

    def pass_s(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(gathering, "now", made)
    return made


def waits(clock: Clock, project: Project, labels: int, each_s: float = 0.25) -> list[float]:
    """How long the look can wait after each of so many labels."""
    gathered, found = Gathering(), []
    for _ in range(labels):
        clock.pass_s(each_s)
        found.append(gathered.wait_s(project))
    return found


def looked_at(missing: int | None) -> Project:
    return Project(id=1, looked_at=LOOKED_AT, labels_missing=missing)


def test_labels_wait_for_each_other_until_something_is_due(clock: Clock) -> None:
    assert waits(clock, looked_at(3), 4) == [GATHER_S - 0.25, GATHER_S - 0.5, 0, 0]


def test_labels_wait_no_longer_than_since_the_last_look(clock: Clock) -> None:
    assert waits(clock, looked_at(None), 3, each_s=GATHER_S / 2) == [GATHER_S / 2, 0, 0]


def test_a_label_of_a_project_that_nobody_has_looked_at_waits_for_none(clock: Clock) -> None:
    assert waits(clock, Project(id=1), 2) == [0, 0]


def test_labels_before_the_last_look_do_not_count(clock: Clock) -> None:
    project, gathered = looked_at(3), Gathering()
    for _ in range(2):
        clock.pass_s(0.25)
        gathered.wait_s(project)
    project.looked_at, project.labels_missing = clock.time, 2
    clock.pass_s(0.25)
    assert gathered.wait_s(project) == GATHER_S - 0.25
    assert gathered.wait_s(Project(id=2, looked_at=clock.time, labels_missing=2)) == GATHER_S
    assert gathered.wait_s(project) == 0


def test_a_look_by_a_clock_that_was_ahead_delays_nothing_for_longer(clock: Clock) -> None:
    clock.pass_s(-3600)
    assert waits(clock, looked_at(None), 1) == [GATHER_S]


def test_as_many_labels_are_counted_as_may_be_missing(clock: Clock) -> None:
    assert waits(clock, looked_at(FAR), FAR, each_s=0.01)[-2:] != [0, 0]
    clock.time = LOOKED_AT
    assert waits(clock, looked_at(FAR), FAR, each_s=0.01)[-1] == 0
