"""Predictions for images that no scoring pass has seen: the network runs."""

from __future__ import annotations

import sqlite3
from base64 import b64encode
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from threading import BoundedSemaphore, Event
from typing import Any

import pytest
import torch
from PIL import Image
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from support.colours import small_network
from support.offline import (
    add_project,
    add_round,
    add_version,
    choice,
    make_services,
    serve,
)

from cdal.backend.images.store import ImageFile, ImageSource, ImageStore
from cdal.backend.services import Services
from cdal.backend.store import tables
from cdal.backend.store.queries import is_id
from cdal.backend.store.tables import ModelVersion, Project
from cdal.backend.web import model as module
from cdal.backend.web.model import CDALModel
from cdal.models import TaskNetwork

STORED = choice("dog")


def picture(colour: str) -> str:
    file = BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def model(services: Services) -> CDALModel:
    """A project whose network has scored task 1, and whose queue is 2, 1."""
    project = add_project(services)
    version = add_version(services, project, {1: "dog"})
    network = small_network(("cat", "dog"))
    network.save(services.config.version_folder(project.id, version.number), "f")
    add_round(services, project, [2, 1], queue_version="CDAL 1.1", model_version_id=version.id)
    with services.store.reading() as session:
        return CDALModel(services, session.get_one(Project, project.id))


def task(number: int | None, colour: str = "red") -> dict[str, Any]:
    made: dict[str, Any] = {"data": {"image": picture(colour)}}
    return made if number is None else {**made, "id": number}


def predict(model: CDALModel, tasks: list[dict[str, Any]]) -> list[Any]:
    return list(model.predict(tasks))


def labels(answers: list[Any]) -> list[str | None]:
    return [a["result"][0]["value"]["choices"][0] if a else None for a in answers]


def test_known_tasks_come_from_the_store(model: CDALModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(CDALModel, "_run_network", never)
    assert [a["result"] for a in predict(model, [{"id": 1}, {"id": 1}])] == [STORED, STORED]


def test_unseen_tasks_are_predicted_in_their_places(model: CDALModel) -> None:
    """A task that is only tried out has no id; a new one comes twice."""
    answers = predict(model, [task(9, "blue"), {"id": 1}, task(None), task(9, "blue"), task(2)])
    assert len(answers) == 5
    assert labels(answers)[1] == "dog"
    assert all(label in ("cat", "dog") for label in labels(answers))
    assert answers[0] == answers[3]
    (region,) = answers[0]["result"]
    assert (region["from_name"], region["to_name"], region["type"]) == ("label", "image", "choices")
    assert 0.5 <= region["score"] <= 1
    # The stream serves what is queued first, then what was predicted beside it.
    assert [a["score"] for a in answers] == pytest.approx([1.0, 0.6, 1.0, 1.0, 0.3])
    assert {a["model_version"] for a in answers} == {"CDAL 1.1"}


def test_predictions_of_the_network_are_those_of_the_network(
    model: CDALModel, services: Services
) -> None:
    network = services.networks.get(services.config.version_folder(1, 1))
    pixels = torch.zeros(3, 30, 40, dtype=torch.uint8)
    pixels[0] = 255
    prediction = network.predict(network.prepare(pixels)[None])
    assert isinstance(prediction.regions, torch.Tensor)
    expected = prediction.regions[0]
    (answer,) = predict(model, [task(None, "red")])
    assert answer["result"][0]["value"]["choices"] == [("cat", "dog")[int(expected.argmax())]]
    assert answer["result"][0]["score"] == pytest.approx(float(expected.max()), abs=1e-4)


@pytest.mark.parametrize(
    "data",
    [None, [], "x", {}, {"image": None}, {"image": 5}, {"image": "/etc/passwd"},
     {"image": "data:image/png;base64,AAAA"}, {"other": "x"}],
)  # fmt: skip
def test_an_unavailable_image_gets_no_result(model: CDALModel, data: Any) -> None:
    answers = predict(model, [{"id": 8, "data": data}, task(None)])
    assert labels(answers)[0] is None
    assert labels(answers)[1] in ("cat", "dog")


def test_a_queue_version_of_no_round_is_ignored(model: CDALModel, services: Services) -> None:
    with services.store.transaction() as session:
        session.get_one(Project, 1).queue_version = "another"
        model.project = session.get_one(Project, 1)
    assert predict(model, [{"id": 1}]) == [[]]


def test_the_rounds_own_version_predicts_not_a_later_one(
    model: CDALModel, services: Services
) -> None:
    with services.store.transaction() as session:
        later = ModelVersion(
            project_id=1, number=2, architecture="a", classes=["x"], fingerprint="g", labels=9,
            metrics={}, promoted=True, verdict="serves", seconds=1.0,
        )  # fmt: skip
        session.add(later)
        session.flush()
        serve(session, later.id)
    assert labels(predict(model, [task(None)]))[0] in ("cat", "dog")


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (5, True),
        (0, True),
        (-1, False),
        (2**63, False),
        ("5", False),
        (5.0, False),
        (True, False),
        (None, False),
    ],
)
def test_what_is_an_id(value: object, answer: bool) -> None:
    assert is_id(value) == answer


def test_an_answer_comes_in_time_whatever_the_images_take(
    model: CDALModel, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there was no time for gets no prediction, not an empty one: a round makes it later."""
    monkeypatch.setattr(module, "ANSWER_WITHIN_S", 0.3)
    release = Event()
    opened = ImageStore.opened

    def hang(
        store: ImageStore, source: ImageSource, task_id: int, value: object
    ) -> AbstractContextManager[ImageFile]:
        if task_id == 7:
            release.wait(60)
        return opened(store, source, task_id, value)

    monkeypatch.setattr(ImageStore, "opened", hang)
    monkeypatch.setattr(TaskNetwork, "prediction_batch_size", 1)
    answers = predict(model, [task(6), {"id": 1}, task(7), task(8, "blue")])
    assert predict(model, [task(7)]) == [[]]  # nor if it hangs before time is up
    release.set()
    assert labels([answers[1]]) == ["dog"]
    assert answers[2] == []
    assert len(answers) == 4
    predict(model, [task(6), task(7)])
    # Label Studio does not say so, and a person who retrieves predictions again needs one event.
    with services.store.reading() as session:
        (said,) = session.scalars(select(tables.Event.text).filter_by(level="warning"))
    assert "of 3 images that Label Studio requested at once" in said


def test_an_event_says_that_predictions_are_missing_even_if_it_cannot_be_written(
    model: CDALModel, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("disk is full"))

    monkeypatch.setattr(module, "ANSWER_WITHIN_S", 0.0)
    monkeypatch.setattr(services.store, "transaction", fail)
    assert predict(model, [task(6)]) == [[]]


def test_calls_with_many_images_take_turns_and_those_with_few_do_not_wait(
    model: CDALModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_WITHIN_S", 0.3)
    monkeypatch.setattr(module, "MANY", 2)
    monkeypatch.setattr(module, "_many", BoundedSemaphore(1))
    with module._many:
        assert predict(model, [task(6), task(7), task(8), {"id": 1}])[:3] == [[], [], []]
    monkeypatch.setattr(module, "ANSWER_WITHIN_S", 60.0)
    with module._many:
        assert all(labels(predict(model, [task(6), task(7)])))
    assert all(labels(predict(model, [task(6), task(7), task(8)])))


def test_an_unexpected_error_is_raised(model: CDALModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(CDALModel, "_run_network", fail)
    with pytest.raises(ZeroDivisionError):
        predict(model, [task(6)])
