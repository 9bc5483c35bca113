"""A refresh of the order: what it asks of Label Studio, and that no kill loses or repeats anything.

Label Studio is a fake; head training on the installed backbone is real.
"""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select
from support.killed import place
from support.machine import Machine, People, PowerLossError, check
from support.offline import (
    BACKEND,
    FakeLabelStudio,
    add_project,
    serving_id,
)
from support.patterned import as_address

from cdal.backend.label_studio.data import MLBackendInfo
from cdal.backend.loop import changes
from cdal.backend.services import Services
from cdal.backend.store.tables import ModelVersion, Pick, Project, Round

pytestmark = pytest.mark.slow

SETTINGS = {"budget": 1000, "reserve": 4, "min_labels": 3, "train_every": 3, "image_size": 32}

EVENT = "ANNOTATION_CREATED"

REQUESTS = frozenset(
    {
        "read_project", "tasks", "count", "annotations", "people", "task_ids", "ml_backends",
        "webhooks", "prediction_counts", "tasks_with", "import_predictions", "serve", "show_queue",
    }
)  # fmt: skip


class CountedLabelStudio(FakeLabelStudio):
    """Notes the requests that the real client would send."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name in REQUESTS:
            self.requests.append(name)
        return super().__getattribute__(name)


def picture(task: int) -> str:
    """One of eight: cats, with odd numbers, are reddish, and dogs are bluish."""
    hue = (0.0 if task % 2 else 0.6) + task % 8 / 80
    colour = tuple(round(255 * share) for share in colorsys.hsv_to_rgb(hue, 0.9, 0.9))
    return as_address(Image.new("RGB", (8, 8), colour))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A project whose first round is open."""
    label_studio = CountedLabelStudio()
    label_studio.backends = [MLBackendInfo(BACKEND, SETTINGS)]
    label_studio.add_tasks(range(1, 121))
    for number, task in label_studio.known.items():
        task.data["image"] = picture(number)  # type: ignore[index]
    monkeypatch.setattr(Services, "client", lambda *_: label_studio)
    monkeypatch.setattr(changes, "FRESH_S", 3600.0)  # however slow this machine is
    made = Machine(tmp_path, label_studio)
    add_project(made.services, extra_params=SETTINGS)
    made.run()
    yield made
    made.close()


@pytest.fixture
def people(machine: Machine) -> People:
    """Who have labelled so much that a model serves."""
    found = People(machine.label_studio)
    found.label(3)
    machine.run(asked_by=EVENT)
    return found


def requests(machine: Machine) -> Counter[str]:
    """The requests since this was last called."""
    label_studio = machine.label_studio
    assert isinstance(label_studio, CountedLabelStudio)
    found = Counter(label_studio.requests)
    label_studio.requests.clear()
    return found


def versions(machine: Machine) -> list[ModelVersion]:
    with machine.services.store.reading() as session:
        return list(session.scalars(select(ModelVersion).order_by(ModelVersion.number)))


def test_the_requests_of_a_refresh(machine: Machine, people: People) -> None:
    before = len(versions(machine))
    requests(machine)
    people.label(3)
    machine.run(asked_by=EVENT)
    assert requests(machine) == {
        # One look at what changed, and none at what was deleted.
        "read_project": 1, "tasks": 1,
        # What the changed tasks are labelled as: as news, and to learn from.
        "annotations": 2,
        # The new order.
        "import_predictions": 1, "serve": 1, "show_queue": 1,
    }  # fmt: skip
    assert len(versions(machine)) == before + 1
    assert versions(machine)[-1].labels == len(machine.label_studio.given)


def test_after_a_restart_everything_is_read_again(machine: Machine, people: People) -> None:
    machine.lose_power(0)
    people.label(3)
    requests(machine)
    machine.run(asked_by=EVENT)
    assert requests(machine)["prediction_counts"] == 1
    assert versions(machine)[-1].labels == len(machine.label_studio.given)


def test_an_event_makes_the_next_step_look_again(
    machine: Machine, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label that comes while the model trains, and whose event has arrived."""
    ensure_read = changes.ensure_read
    seen = []

    def meanwhile(work: Any) -> None:
        people.label(1)
        machine.services.jobs.ask(1, "sync", EVENT)
        requests(machine)
        ensure_read(work)
        seen.append(requests(machine)["tasks"])

    monkeypatch.setattr("cdal.backend.loop.select.ensure_read", meanwhile)
    people.label(3)
    machine.run(asked_by=EVENT)
    assert seen[0] == 1


def test_what_was_read_long_ago_is_read_again(
    machine: Machine, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "FRESH_S", 0.0)
    requests(machine)
    people.label(3)
    machine.run(asked_by=EVENT)
    assert requests(machine)["tasks"] == 3  # by sync, train and select


def test_a_label_whose_event_is_late_counts_for_the_next_training(
    machine: Machine, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is submitted while the model trains, and nothing tells the backend before the queue."""
    ensure_read = changes.ensure_read
    late: list[int] = []

    def meanwhile(work: Any) -> None:
        if not late:
            known = set(machine.label_studio.given)
            people.label(1)
            late.extend(set(machine.label_studio.given) - known)
        ensure_read(work)

    monkeypatch.setattr("cdal.backend.loop.select.ensure_read", meanwhile)
    people.label(3)
    machine.run(asked_by=EVENT)
    assert versions(machine)[-1].labels == len(machine.label_studio.given) - 1
    check_order(machine)
    before = len(versions(machine))
    people.label(2)  # the third new one is the late one
    machine.run(asked_by=EVENT)
    check(machine)
    assert len(versions(machine)) == before + 1
    assert versions(machine)[-1].labels == len(machine.label_studio.given)


def check_order(machine: Machine) -> None:
    """Check that the label stream serves the open round's newest order, each task once."""
    with machine.services.store.reading() as session:
        (current,) = session.scalars(select(Round).filter_by(state="open"))
        ranked = session.scalars(
            select(Pick.task_id)
            .where(Pick.round_id == current.id, Pick.state == "queued")
            .order_by(Pick.rank)
        ).all()
        project = session.get_one(Project, 1)
        newest = session.scalars(select(ModelVersion.id).order_by(ModelVersion.id.desc())).first()
        assert current.number == 1  # a refresh is within the round
        assert current.model_version_id == serving_id(session, project.id)
        assert newest is not None
    assert project.queue_version == current.queue_version == machine.label_studio.info.model_version
    assert machine.label_studio.stream() == list(ranked)
    assert len(set(ranked)) == len(ranked) > 0


STEPS = ("train", "score", "select", "queue")


def test_a_kill_at_any_point_of_a_refresh(
    machine: Machine, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def watched(path: Path, target: Path) -> Path:
        machine.at(f"before rename in {place()}")
        moved = rename(path, target)
        machine.at(f"after rename in {place()}")
        return moved

    monkeypatch.setattr(Path, "rename", watched)
    passed = []
    for _ in range(2):
        people.label(3)
        machine.run(asked_by=EVENT)
        passed.append(list(machine.passed))
    # Those of every refresh, such as of the second that any process makes.
    recurring = [point for point in dict.fromkeys(passed[0]) if point in passed[1]]
    points = [point for point in recurring if is_of_refresh(point)]
    assert {point.rpartition(" of ")[2] for point in points} >= set(STEPS)
    assert {"after import_predictions", "after serve", "before show_queue"} <= set(points)
    for point in points:
        trained, before = len(versions(machine)), machine.label_studio.info.model_version
        people.label(3)
        try:
            machine.run(fatal=point, asked_by=EVENT)
        except PowerLossError:
            machine.lose_power(0)
        else:
            pytest.fail(f'the refresh never came to "{point}"; it passed {machine.passed}')
        machine.run()
        check(machine)
        check_order(machine)
        assert machine.label_studio.info.model_version != before, point
        assert len(versions(machine)) == trained + 1, point
        assert versions(machine)[-1].labels == len(machine.label_studio.given), point


def is_of_refresh(point: str) -> bool:
    """Whether it is a commit of one of the steps, a change of Label Studio or a file's arrival."""
    step = point.rpartition(" of ")[2]
    return "manager.report" not in point and (
        step in STEPS or point.startswith(("before", "after"))
    )
