"""A power loss: the database loses its last transactions; files and Label Studio lose nothing.

A test cannot pull the plug. SQLite promises (WAL, synchronous=NORMAL) that its last
transactions alone are lost; so the database is put back to what it was a few commits ago. Label
Studio is a fake, since this takes many losses; the trainings are real.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import event, select
from sqlalchemy.orm import Session
from support.killed import place
from support.offline import BACKEND, FakeLabelStudio, add_project, make_config, picture

from cdal.backend.label_studio.data import MLBackendInfo
from cdal.backend.loop.rounds import on_job_given_up
from cdal.backend.loop.runner import run_job
from cdal.backend.services import Services
from cdal.backend.store.leftovers import remove_leftovers
from cdal.backend.store.tables import Job, ModelVersion, Project, Task

SETTINGS = {
    "budget": 3,
    "reserve": 2,
    "min_labels": 3,
    "epochs": 1,
    "image_size": 32,
    "network": "mobilenet_v3_small",
}


class PowerLossError(BaseException):
    """Nothing catches it."""


@dataclass
class Machine:
    """A backend that runs its jobs in this process, one after another, until the power fails."""

    folder: Path
    label_studio: FakeLabelStudio
    states: deque[sqlite3.Connection] = field(default_factory=lambda: deque(maxlen=6))
    commits_left: int | None = None
    fatal: str | None = None

    def __post_init__(self) -> None:
        self.services = Services.open(make_config(self.folder), on_job_given_up)
        event.listen(Session, "after_commit", self._committed)

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
        if place() == self.fatal:
            raise PowerLossError

    def run(self, commits: int | None = None, fatal: str | None = None) -> None:
        """Run all jobs; the power fails after some commits, or after a commit in a given function.

        Args:
            commits: how many.
            fatal: as `killed.place` says it.
        """
        self.commits_left, self.fatal = commits, fatal
        self.services.jobs.ask(1, "sync", "the minute's poll")
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
        self.services.store.close()
        self.services.jobs.huey.storage.close()
        kept = self.states[max(-len(self.states), -1 - transactions)]
        for file in self.folder.glob("cdal.sqlite*"):
            file.unlink()
        with closing(sqlite3.connect(self.folder / "cdal.sqlite")) as store:
            kept.backup(store)
        self.services = Services.open(make_config(self.folder), on_job_given_up)
        self.services.jobs.recover()
        remove_leftovers(self.services.config, self.services.store)

    def close(self) -> None:
        event.remove(Session, "after_commit", self._committed)
        self.services.store.close()
        self.services.jobs.huey.storage.close()
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


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    label_studio = FakeLabelStudio()
    label_studio.backends = [MLBackendInfo(BACKEND, SETTINGS)]
    label_studio.add_tasks(range(1, 201))
    for task in label_studio.known.values():
        task.data["image"] = picture()  # type: ignore[index]
    monkeypatch.setattr(Services, "client", lambda *_: label_studio)
    made = Machine(tmp_path, label_studio)
    yield made
    made.close()


LOSSES = [
    ("queue._new_edition of queue", 1),
    # Label Studio has the predictions, but the store has forgotten their queue version.
    ("queue._send of queue", 3),
    ("queue.run of queue", 1),
    ("score._save of score", 1),
    ("train.save of train", 1),
    ("train.save of train", 3),
    ("select.run of select", 1),
]


def label_more(machine: Machine, people: People, labels: int) -> None:
    machine.run()
    check(machine)
    people.label(labels)


def check_the_end(machine: Machine, people: People) -> None:
    label_more(machine, people, 3)
    machine.run()
    check(machine)
    with machine.services.store.reading() as session:
        newest = session.scalars(select(ModelVersion.labels).order_by(ModelVersion.id.desc()))
        assert newest.first() == len(machine.label_studio.given)


@pytest.mark.slow
def test_a_power_loss_where_it_hurts(machine: Machine) -> None:
    people = People(machine.label_studio)
    add_project(machine.services, extra_params=SETTINGS)
    label_more(machine, people, 3)
    for fatal, transactions in LOSSES:
        with pytest.raises(PowerLossError):
            machine.run(fatal=fatal)
        machine.lose_power(transactions)
        label_more(machine, people, 3)
    check_the_end(machine, people)


@pytest.mark.endurance
@pytest.mark.timeout(3600)
def test_power_losses_at_random_moments(machine: Machine) -> None:
    people = People(machine.label_studio)
    add_project(machine.services, extra_params=SETTINGS)
    draws = random.Random(0)
    losses = 0
    while losses < 100:
        try:
            machine.run(commits=draws.randint(1, 60))
        except PowerLossError:
            losses += 1
            machine.lose_power(transactions=draws.randint(0, 3))
        else:
            check(machine)
            people.label(draws.randint(1, 3))
    check_the_end(machine, people)
