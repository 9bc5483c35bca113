"""A power loss: the database loses its last transactions; files and Label Studio lose nothing.

A test cannot pull the plug. SQLite promises (WAL, synchronous=NORMAL) that its last
transactions alone are lost; so the database is put back to what it was a few commits ago. Label
Studio is a fake, since this takes many losses; the trainings are real.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from support.machine import Machine, People, PowerLossError, check
from support.offline import BACKEND, FakeLabelStudio, add_project, picture

from cdal.backend.label_studio.data import MLBackendInfo
from cdal.backend.services import Services
from cdal.backend.store.tables import ModelVersion

SETTINGS = {
    "budget": 3,
    "reserve": 2,
    "min_labels": 3,
    "epochs": 1,
    "image_size": 32,
    "network": "mobilenet_v3_small",
}


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
    ("versions.save of train", 1),
    ("versions.save of train", 3),
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
