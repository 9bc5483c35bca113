"""A backend that runs its jobs in the test's own process until its power fails or it is killed."""

from __future__ import annotations

import sqlite3
from collections import Counter, deque
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from cdal.backend.jobs.gathering import POLL
from cdal.backend.loop.runner import run_job
from cdal.backend.store.leftovers import remove_leftovers
from cdal.backend.store.tables import Job, ModelVersion, Project, Task
from support.killed import CHANGES, place
from support.offline import FakeLabelStudio, make_services


class PowerLossError(BaseException):
    """Nothing catches it."""


@dataclass
class Machine:
    """A backend that runs its jobs in this process, one after another, until the power fails.

    Attributes:
        folder: its data folder.
        label_studio: a stand-in.
        states: the database after each of the last commits.
        commits_left: how many until the power fails.
        fatal: the point at which it fails, see `at`.
        passed: the points that the last run has passed.
    """

    folder: Path
    label_studio: FakeLabelStudio
    states: deque[sqlite3.Connection] = field(default_factory=lambda: deque(maxlen=6))
    commits_left: int | None = None
    fatal: str | None = None
    passed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.services = make_services(self.folder)
        event.listen(Session, "after_commit", self._committed)
        for name in CHANGES:
            self._watch(name)

    def _watch(self, name: str) -> None:
        """Make the calls of Label Studio by this name points, before and after."""
        call = getattr(self.label_studio, name)

        def watched(*arguments: Any) -> Any:
            self.at(f"before {name}")
            answer = call(*arguments)
            self.at(f"after {name}")
            return answer

        setattr(self.label_studio, name, watched)

    def at(self, point: str) -> None:
        """Note that a point was passed; the power fails here if it is the fatal one.

        A point is the place of a commit that has just been made, as `killed.place` says it, or
        before or after a call that changes Label Studio.
        """
        self.passed.append(point)
        if point == self.fatal:
            raise PowerLossError

    def _committed(self, session: Session) -> None:
        if session.get_bind().get_execution_options().get("sqlite_begin") == "DEFERRED":
            return
        state = sqlite3.connect(":memory:")
        with closing(sqlite3.connect(self.folder / "cdal.sqlite")) as store:
            store.backup(state)
        if len(self.states) == self.states.maxlen:
            self.states[0].close()
        self.states.append(state)
        if self.commits_left is not None:
            self.commits_left -= 1
            if self.commits_left == 0:
                raise PowerLossError
        self.at(place())

    def run(
        self, commits: int | None = None, fatal: str | None = None, asked_by: str = POLL
    ) -> None:
        """Look at Label Studio and run all jobs; the power fails after some commits, or at a point.

        Args:
            commits: how many.
            fatal: see `at`.
            asked_by: what makes it look.
        """
        self.commits_left, self.fatal = commits, fatal
        self.passed.clear()
        self.services.jobs.ask(1, "sync", asked_by)
        while waiting := self._waiting():
            for job_id in waiting:
                run_job(self.services, job_id, lambda: False)
        self.commits_left = self.fatal = None

    def _waiting(self) -> list[int]:
        with self.services.store.reading() as session:
            return list(session.scalars(select(Job.id).filter_by(state="pending")))

    def lose_power(self, transactions: int) -> None:
        """Restart on a database without its last transactions."""
        self.commits_left = self.fatal = None
        self.services.close()
        kept = self.states[max(-len(self.states), -1 - transactions)]
        for file in self.folder.glob("cdal.sqlite*"):
            file.unlink()
        with closing(sqlite3.connect(self.folder / "cdal.sqlite")) as store:
            kept.backup(store)
        self.services = make_services(self.folder)
        self.services.jobs.recover()
        remove_leftovers(self.services.config, self.services.store)

    def close(self) -> None:
        event.remove(Session, "after_commit", self._committed)
        self.services.close()
        for state in self.states:
            state.close()


class People:
    """Annotators who label what the stream serves."""

    def __init__(self, label_studio: FakeLabelStudio) -> None:
        self._label_studio = label_studio
        self._clock = 0

    def label(self, count: int) -> None:
        fake = self._label_studio
        waiting = [t for t in fake.stream() if fake.known[t].annotations == 0]
        for task in waiting[:count]:
            self._clock += 1
            fake.label(task, at=f"2026-02-01T{self._clock // 3600:02}:00:00.{self._clock:06}Z")
            chosen = {"choices": ["cat" if task % 2 else "dog"]}
            result = {"from_name": "label", "to_name": "image", "type": "choices", "value": chosen}
            fake.given[task] = [{"id": task, "result": [result], "was_cancelled": False}]


def check(machine: Machine) -> None:
    """Check what must be true once nothing is left to do."""
    label_studio = machine.label_studio
    pairs = Counter((p["task"], p["model_version"]) for c in label_studio.imports for p in c)
    assert max(pairs.values()) == 1, "a task has two predictions of one queue version"
    with machine.services.store.reading() as session:
        project = session.get_one(Project, 1)
        assert project.problem is None
        assert project.queue_version == label_studio.info.model_version
        assert not session.scalars(select(Job.id).where(Job.state != "done")).all()
        labelled = set(session.scalars(select(Task.task_id).where(Task.annotations > 0)))
        versions = session.scalars(select(ModelVersion).order_by(ModelVersion.number)).all()
    assert labelled == set(label_studio.given), "a label was lost"
    marks = [version.fingerprint for version in versions]
    assert len(marks) == len(set(marks)), "a training was done twice with effect"
    weights = machine.services.config.version_folder(1, 1).parent
    folders = {path.name for path in weights.iterdir()} if weights.exists() else set()
    assert folders <= {str(version.number) for version in versions}, "weights of no version"
