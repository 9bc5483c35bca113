"""A project with boxes and a choice per image, from labels to the queue; without a server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image
from sqlalchemy import select
from support.offline import FakeLabelStudio, add_project, make_browser, make_work, services_of
from support.patterned import as_address, patterned

from cdal.backend.actions import roll_back
from cdal.backend.annotations import truths_of
from cdal.backend.annotations.agreement import agreement_over
from cdal.backend.jobs.kinds import JobKind
from cdal.backend.label_studio.data import ProjectInfo, TaskInfo
from cdal.backend.loop import queue, score, train
from cdal.backend.loop import select as select_job
from cdal.backend.loop.changes import read_changes
from cdal.backend.loop.serving import serving_of
from cdal.backend.loop.version_images import VersionImages
from cdal.backend.project_config import ProjectConfig
from cdal.backend.services import Services
from cdal.backend.store.queries import changed_labels
from cdal.backend.store.tables import ModelVersion, Pick, Project, Round, Task
from cdal.backend.web.model import CDALModel

CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<RectangleLabels name="thing" toName="image"><Label value="white"/><Label value="black"/>'
    "</RectangleLabels>"
    '<Choices name="light" toName="image"><Choice value="red"/><Choice value="blue"/></Choices>'
    "</View>"
)
SETTINGS = {
    "image_size": 64, "min_labels": 6, "budget": 4, "reserve": 2, "tolerance": 1.0, "epochs": 2,
}  # fmt: skip
BOTH, ONLY_BOX, ONLY_CHOICE = range(1, 13), range(13, 16), range(16, 19)
WAITING = range(19, 27)

JOBS: Mapping[JobKind, Any] = {
    "train": train, "score": score, "select": select_job, "queue": queue,
}  # fmt: skip


def colour(number: int) -> str:
    """Of the square in a picture."""
    return "white" if number % 3 else "black"


def picture(number: int) -> str:
    """A reddish or bluish image with a white or black square, wherever the number puts it."""
    image = patterned("red" if number % 2 else "blue", number)
    image.paste(Image.new("RGB", (10, 10), colour(number)), (3 * (number % 8), 2 * (number % 5)))
    return as_address(image)


def choice(number: int) -> dict[str, Any]:
    name = "red" if number % 2 else "blue"
    region = {"from_name": "light", "to_name": "image", "type": "choices"}
    return {**region, "value": {"choices": [name]}}


def box(number: int) -> dict[str, Any]:
    region = {"from_name": "thing", "to_name": "image", "type": "rectanglelabels"}
    place = {"x": 7.5 * (number % 8), "y": 6.67 * (number % 5), "width": 25, "height": 33.3}
    size = {"original_width": 40, "original_height": 30}
    return {**region, **size, "value": {**place, "rectanglelabels": [colour(number)]}}


class Things:
    """The project, its stand-in for Label Studio, and its jobs."""

    def __init__(self, folder: Path) -> None:
        self.browser = make_browser(folder)
        self.services: Services = services_of(self.browser)
        self.project = add_project(self.services, labeling_config=CONFIG)
        self.client = FakeLabelStudio(info=ProjectInfo("Things", CONFIG, "", ""))
        for number in (*BOTH, *ONLY_BOX, *ONLY_CHOICE, *WAITING):
            data = {"image": picture(number)}
            self.client.known[number] = TaskInfo(number, data, 0, 0, "2026-01-01T00:00:00Z")
        for number in BOTH:
            self.label(number, box(number), choice(number))
        for number in ONLY_BOX:
            self.label(number, box(number))
        for number in ONLY_CHOICE:
            self.label(number, choice(number))

    def label(self, number: int, *regions: dict[str, Any], at: str = "01T00:00:00Z") -> None:
        data = self.client.known[number].data
        self.client.known[number] = TaskInfo(number, data, 1, 0, f"2026-01-{at}")
        given = {"id": number, "result": list(regions), "was_cancelled": False}
        self.client.given[number] = [given]

    def run(self, *kinds: JobKind, **settings: Any) -> list[str]:
        outcomes = []
        for kind in kinds:
            work = make_work(self.services, self.project, self.client, kind, **SETTINGS, **settings)  # type: ignore[arg-type]
            outcomes.append(JOBS[kind].run(work))
            self.services.jobs.finish(work.job.id, "done")
        return outcomes

    def read(self) -> None:
        work = make_work(self.services, self.project, self.client, **SETTINGS)  # type: ignore[arg-type]
        read_changes(work)
        self.services.jobs.finish(work.job.id, "done")

    def serving(self) -> dict[str, ModelVersion]:
        config = ProjectConfig.parse(CONFIG, SETTINGS)
        with self.services.store.reading() as session:
            return serving_of(session, self.project.id, config.controls)


@pytest.fixture
def things(tmp_path: Path) -> Things:
    return Things(tmp_path)


def regions_by_control(result: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [one for one in result if one["from_name"] == name] for name in ("thing", "light")
    }


@pytest.mark.slow
def test_both_are_learnt_queued_and_served(things: Things) -> None:
    (said,) = things.run("train")
    assert "model version 1" in said
    assert "model version 2" in said
    serving = things.serving()
    assert [(name, v.number, v.classes) for name, v in serving.items()] == [
        ("thing", 1, ["white", "black"]),
        ("light", 2, ["red", "blue"]),
    ]
    # An annotation of one control alone teaches the other nothing.
    counted = {name: version.labels for name, version in serving.items()}
    assert counted == {"thing": len(BOTH) + len(ONLY_BOX), "light": len(BOTH) + len(ONLY_CHOICE)}
    _held_out_together(things, serving)

    things.run("score", "select", "queue")
    with things.services.store.reading() as session:
        made = session.scalars(select(Round).where(Round.state == "open")).one()
        reasons = {
            index for pick in session.scalars(select(Pick)) for index in pick.reason["classes"]
        }
    assert (made.model_version_id, made.beside) == (serving["thing"].id, [serving["light"].id])
    assert reasons & {"0", "1"}  # classes of the boxes
    assert reasons & {"2", "3"}  # and of the choice
    predictions = [one for chunk in things.client.imports for one in chunk]
    assert len(predictions) == 6
    interface = LabelInterface(CONFIG)
    for one in predictions:
        assert interface.validate_prediction(one, return_errors=True) == []
        assert len(regions_by_control(one["result"])["light"]) == 1
        ids = [region["id"] for region in one["result"] if "id" in region]
        assert len(set(ids)) == len(ids)
    _predicts_the_same(things, predictions)
    _pages_show_both(things)
    _each_rolls_back_alone(things)


def _held_out_together(things: Things, serving: dict[str, ModelVersion]) -> None:
    """What both are labelled for is learnt by both, or held out from both."""
    with things.services.store.reading() as session:
        records = [VersionImages.read(session, version.id) for version in serving.values()]
    first, second = (record.learnt for record in records if record is not None)
    both = len(first & second)
    assert len(first) - both <= len(ONLY_BOX)
    assert len(second) - both <= len(ONLY_CHOICE)


def _predicts_the_same(things: Things, queued: list[dict[str, Any]]) -> None:
    """The endpoint answers what was queued, and predicts an unseen image by both models."""
    with things.services.store.reading() as session:
        project = session.get_one(Project, things.project.id)
    model = CDALModel(things.services, project)
    one = queued[0]
    data = things.client.known[one["task"]].data
    stored, unseen = model.predict([{"id": one["task"], "data": data}, {"id": None, "data": data}])
    assert isinstance(stored, dict)
    assert isinstance(unseen, dict)
    assert stored["result"] == one["result"]
    places = [[(r["from_name"], r["value"]) for r in each["result"]] for each in (stored, unseen)]
    assert json.dumps(places[0]) == json.dumps(places[1])


def _pages_show_both(things: Things) -> None:
    page = things.browser.get(f"/projects/{things.project.id}").get_data(as_text=True)
    assert page.count("Learning curve:") == 2
    assert [f"For {name}:" in page for name in ("thing", "light")] == [True, True]
    assert [f", for {name}," in page for name in ("thing", "light")] == [True, True]
    queued = things.browser.get(f"/projects/{things.project.id}/queue").get_data(as_text=True)
    assert "% sure" in queued  # the choice, among what the models say
    (view,) = things.browser.get("/api/v1/projects").json["projects"]  # type: ignore[index]
    assert view["serving_version"] == 1
    assert [(v["control"], v["serves"]) for v in view["versions"]] == [
        ("thing", True),
        ("light", True),
    ]


def _each_rolls_back_alone(things: Things) -> None:
    for number in WAITING[:4]:
        things.label(number, box(number), choice(number), at="02T00:00:00Z")
    things.run("train")
    assert [v.number for v in things.serving().values()] == [3, 4]
    roll_back(things.services, things.project.id, 1, "test")
    assert [v.number for v in things.serving().values()] == [1, 4]
    roll_back(things.services, things.project.id, 2, "test")
    assert [v.number for v in things.serving().values()] == [1, 2]


@pytest.mark.slow
def test_a_control_without_enough_labels_waits_for_its_model(things: Things) -> None:
    for number in (*BOTH, *ONLY_BOX):
        things.label(number, box(number))
    (said,) = things.run("train")
    assert '"light": There are 3 of at least 6 labels' in said
    assert list(things.serving()) == ["thing"]
    things.run("score", "select", "queue", select_by="light")
    with things.services.store.reading() as session:
        made = session.scalars(select(Round).where(Round.state == "open")).one()
    assert made.model_version_id == things.serving()["thing"].id
    results = [one["result"] for chunk in things.client.imports for one in chunk]
    assert all(not regions_by_control(result)["light"] for result in results)


def test_what_is_said_of_other_controls_alone_says_nothing_here() -> None:
    config = ProjectConfig.parse(CONFIG, SETTINGS)
    boxes, choices = config.controls

    def said(*regions: dict[str, Any]) -> list[frozenset[str] | None]:
        truths = truths_of(config.controls, list(regions), config.settings)
        found = [truths.get(control.from_name) for control in (boxes, choices)]
        return [None if truth is None else truth.classes for truth in found]

    assert said(box(1), choice(1)) == [{"white"}, {"red"}]
    assert said(box(1)) == [{"white"}, None]
    assert said(choice(1)) == [None, {"red"}]  # and not an image without objects
    assert said() == [frozenset(), None]  # as where boxes alone are served
    note = {"from_name": "note", "to_name": "image", "type": "textarea", "value": {"text": ["?"]}}
    assert said(note) == [frozenset(), None]


def test_agreement_is_the_mean_over_the_controls_that_both_label() -> None:
    config = ProjectConfig.parse(CONFIG, SETTINGS)
    one, same_box, alone = (
        truths_of(config.controls, regions, config.settings)
        for regions in ([box(1), choice(1)], [box(1), choice(2)], [choice(2)])
    )
    assert agreement_over(one, same_box) == pytest.approx(0.5)
    assert agreement_over(one, alone) == 0.0
    assert agreement_over({"thing": one["thing"]}, alone) is None


def test_a_change_of_either_control_is_news(things: Things) -> None:
    def changed() -> list[int]:
        with things.services.store.reading() as session:
            found = select(Task.task_id).where(changed_labels(things.project.id))
            return list(session.scalars(found.order_by(Task.task_id)))

    things.read()
    with things.services.store.transaction() as session:
        for task in session.scalars(select(Task)):
            task.learnt_as = task.labelled_as
    assert changed() == []
    things.label(1, box(1), choice(2), at="02T00:00:00Z")
    things.label(2, box(3), choice(2), at="02T00:00:00Z")
    things.label(3, box(3), choice(3), at="02T00:00:00Z")  # saved again, as it was
    things.read()
    assert changed() == [1, 2]


@pytest.mark.parametrize("names", [("thing", "light"), ("light",)])
def test_a_control_that_is_renamed_keeps_its_model(things: Things, names: Sequence[str]) -> None:
    """Also where the other has no model yet, to which it might go otherwise."""
    classes = {"thing": ["white", "black"], "light": ["red", "blue"]}
    with things.services.store.transaction() as session:
        for number, name in enumerate(names, start=1):
            version = ModelVersion(
                project_id=things.project.id, number=number, control=name, serves=True,
                architecture="a", classes=classes[name], fingerprint="", labels=1, metrics={},
                promoted=True, verdict="", seconds=1.0,
            )  # fmt: skip
            session.add(version)
    renamed = CONFIG.replace('"light"', '"lamp"')
    things.client.info = ProjectInfo("Things", renamed, "", "")
    things.read()
    with things.services.store.reading() as session:
        found = session.scalars(select(ModelVersion).order_by(ModelVersion.number))
        assert [version.control for version in found] == [*names[:-1], "lamp"]
