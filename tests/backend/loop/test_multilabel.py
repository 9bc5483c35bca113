"""A project whose images may have several classes, from labels to the queue; without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image
from sqlalchemy import select
from support.offline import FakeLabelStudio, add_project, make_browser, make_work, services_of
from support.patterned import as_address, patterned

from cdal.backend.errors import SettingsError
from cdal.backend.label_studio.data import ProjectInfo, TaskInfo
from cdal.backend.loop import queue, score, train
from cdal.backend.loop import select as select_job
from cdal.backend.project_config import ProjectConfig
from cdal.backend.store.tables import ModelVersion, Project

CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<Choices name="label" toName="image" choice="multiple">'
    '<Choice value="left"/><Choice value="right"/></Choices></View>'
)
SETTINGS = {"image_size": 64, "min_labels": 8, "budget": 4, "reserve": 2, "tolerance": 1.0}


def picture(number: int, there: tuple[int, int]) -> str:
    """An image whose left half is red, whose right half is blue, both or none."""
    image = patterned("gray", number)
    for side, is_there in enumerate(there):
        if is_there:
            box = (20 * side, 0, 20 * side + 20, 30)
            whole = Image.new("RGB", (20, 30), ("red", "blue")[side])
            image.paste(Image.blend(image.crop(box), whole, 0.8), box)
    return as_address(image)


def labelled(there: tuple[int, int]) -> list[dict[str, Any]]:
    names = [name for name, is_there in zip(("left", "right"), there, strict=True) if is_there]
    region = {"from_name": "label", "to_name": "image", "type": "choices"}
    return [{**region, "value": {"choices": names}}] if names else []


def test_it_is_learnt_ranked_and_queued(tmp_path: Path) -> None:
    browser = make_browser(tmp_path)
    services = services_of(browser)
    project = add_project(services, labeling_config=CONFIG)
    client = FakeLabelStudio(info=ProjectInfo("Sides", CONFIG, "", ""))
    for task_id in range(1, 33):
        there = task_id % 2, task_id // 2 % 2
        data, is_labelled = {"image": picture(task_id, there)}, task_id <= 24
        client.known[task_id] = TaskInfo(task_id, data, int(is_labelled), 0, "2026-01-01T00:00:00Z")
        if is_labelled:
            client.given[task_id] = [
                {"id": task_id, "result": labelled(there), "was_cancelled": False}
            ]
    for kind, job in (
        ("train", train),
        ("score", score),
        ("select", select_job),
        ("queue", queue),
    ):
        work = make_work(services, project, client, kind, **SETTINGS)  # type: ignore[arg-type]
        job.run(work)
        services.jobs.finish(work.job.id, "done")

    with services.store.reading() as session:
        version = session.scalars(select(ModelVersion)).one()
        project = session.get_one(Project, project.id)
    assert version.metrics["main_name"] == "macro_f1"
    assert version.serves
    predictions = [one for chunk in client.imports for one in chunk]
    assert len(predictions) == 6
    interface = LabelInterface(CONFIG)
    for one in predictions:
        assert interface.validate_prediction(one, return_errors=True) == []
        there = one["task"] % 2, one["task"] // 2 % 2
        wanted = labelled(there)
        assert [r["value"] for r in one["result"]] == [r["value"] for r in wanted]
    said = browser.get("/projects/1/queue").get_data(as_text=True)
    assert "left" in said
    assert "right" in said
    assert "may have several classes" in browser.get("/projects/1").get_data(as_text=True)

    # The next version is compared with it, on images that neither has learnt from.
    client.label(25, at="2026-01-03T00:00:00Z")
    client.given[25] = [{"id": 25, "result": labelled((1, 0)), "was_cancelled": False}]
    services.remembered(project).changes_read = None
    train.run(make_work(services, project, client, "train", **SETTINGS))
    with services.store.reading() as session:
        newest = session.scalars(select(ModelVersion).order_by(ModelVersion.number.desc())).first()
    assert newest is not None
    assert "macro_f1" in newest.verdict
    assert "held-out images" in newest.verdict


@pytest.mark.parametrize(
    "settings",
    [{"selector": "badge"}, {"selector": "committee"}, {"region": "image"}],
)
def test_what_needs_classes_that_exclude_each_other_is_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(SettingsError, match=f'Setting "{name}"'):
        ProjectConfig.parse(CONFIG, settings)
