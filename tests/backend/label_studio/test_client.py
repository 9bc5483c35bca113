"""Requests to a real Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from support.processes import PATIENCE

from cdal.backend.annotations import mark_of
from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.errors import LabelStudioError
from cdal.backend.label_studio import client as client_module
from cdal.backend.label_studio.client import UNCERTAINTY_SAMPLING, LabelStudioClient
from cdal.demo.annotator import Annotator, choice
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.project import LabelStudioProject, choices_config

pytestmark = pytest.mark.label_studio

CHOICE = {"from_name": "label", "to_name": "image", "type": "choices"}


@pytest.fixture
def project(label_studio: LabelStudioServer) -> Iterator[LabelStudioProject]:
    config = choices_config(["cat", "dog"])
    made = LabelStudioProject.create(label_studio.url, label_studio.token, "client test", config)
    yield made
    made.close()


@pytest.fixture
def client(
    label_studio: LabelStudioServer, project: LabelStudioProject
) -> Iterator[LabelStudioClient]:
    with closing(
        LabelStudioClient(label_studio.url, label_studio.token, project.number)
    ) as connected:
        yield connected


# The SDK's own exchange of the token for an access token uses a name that pydantic has renamed.
@pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")
def test_a_personal_access_token_is_as_good_as_a_legacy_one(
    label_studio: LabelStudioServer, project: LabelStudioProject
) -> None:
    made = httpx.post(
        f"{label_studio.url}/api/token/",
        json={},
        headers={"Authorization": f"Token {label_studio.token}"},
        timeout=PATIENCE,
    )
    with closing(
        LabelStudioClient(label_studio.url, made.json()["token"], project.number)
    ) as client:
        assert client.read_project().title == "client test"
        headers = client.authorization()
    assert headers["Authorization"].startswith("Bearer ")
    answer = httpx.get(
        f"{label_studio.url}/api/projects/{project.number}", headers=headers, timeout=PATIENCE
    )
    assert answer.status_code == 200


def test_a_wrong_token_and_an_absent_server_are_told_apart(
    label_studio: LabelStudioServer, project: LabelStudioProject
) -> None:
    with (
        closing(LabelStudioClient(label_studio.url, "f" * 40, project.number)) as unknown,
        pytest.raises(LabelStudioError, match="refused to read the project: 401") as refused,
    ):
        unknown.read_project()
    assert refused.value.status == 401
    with (
        closing(LabelStudioClient("http://localhost:9", "f" * 40, 1, timeout_s=2.0)) as absent,
        pytest.raises(LabelStudioError, match="did not answer") as error,
    ):
        absent.read_project()
    assert error.value.status is None


def test_tasks_annotations_and_counts(
    label_studio: LabelStudioServer,
    project: LabelStudioProject,
    client: LabelStudioClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = project.import_images([f"/data/upload/{n}.png" for n in range(4)])
    annotator = Annotator(label_studio.url, label_studio.token, project.number)
    annotator.submit(ids[1], "dog")
    annotator.skip(ids[2])
    tasks = {task.task_id: task for task in client.tasks()}
    assert sorted(tasks) == ids
    assert tasks[ids[0]].data == {"image": "/data/upload/0.png"}
    assert [(tasks[i].annotations, tasks[i].skips) for i in ids] == [(0, 0), (1, 0), (0, 1), (0, 0)]
    assert (client.count(), client.count(labelled=True)) == (4, 1)
    assert client.task_ids() == set(ids)
    middle = (ids[1], ids[2])
    assert client.task_ids(middle) == set(middle)
    assert (client.count(among=middle), client.count(labelled=True, among=middle)) == (2, 1)
    monkeypatch.setattr(client_module, "PAGE", 1)
    assert [task.task_id for task in client.tasks(after=ids[0])] == ids[1:]
    assert [task.task_id for task in client.tasks(after=ids[0], until=ids[2])] == ids[1:3]
    assert client.newest_change() == max(task.updated_at for task in tasks.values())
    assert list(dict(client.annotations(among=(ids[2], ids[3])))) == []

    newest = max(task.updated_at for task in tasks.values())
    annotator.submit(ids[3], "cat")
    assert ids[3] in {task.task_id for task in client.tasks(newest)}
    assert ids[0] not in {task.task_id for task in client.tasks(newest)}
    assert ids[3] in dict(client.annotations(newest))
    assert dict(client.annotations("2100-01-01T00:00:00.000000Z")) == {}

    monkeypatch.setattr(client_module, "ANNOTATED_PAGE", 1)
    found = dict(client.annotations())
    assert sorted(found) == [ids[1], ids[3]]  # a skipped task has no submitted annotation
    assert found[ids[1]][0]["result"][0]["value"] == {"choices": ["dog"]}
    assert found[ids[1]][0]["completed_by"] in client.people()
    assert found[ids[1]][0]["parent_prediction"] is None


def test_a_prediction_is_read_by_its_number(
    project: LabelStudioProject, client: LabelStudioClient
) -> None:
    (task,) = project.import_images(["/data/upload/0.png"])
    made = project.sdk.predictions.create(task=task, result=choice("cat"), model_version="v")
    assert made.id is not None
    found = client.prediction(made.id)
    assert found is not None
    assert found.model_version == "v"
    assert found.result[0]["value"] == {"choices": ["cat"]}
    assert client.prediction(made.id + 1) is None


def test_whatever_changes_what_counts_changes_the_task(
    label_studio: LabelStudioServer, project: LabelStudioProject, client: LabelStudioClient
) -> None:
    """By which a sync finds corrections, second opinions and ground truths."""
    (task,) = project.import_images(["/data/upload/0.png"])
    annotator = Annotator(label_studio.url, label_studio.token, project.number)
    annotator.submit(task, "dog")
    control = served_control(client.read_project().labeling_config)

    def state() -> tuple[str, str | None]:
        (info,) = client.tasks()
        (annotations,) = dict(client.annotations(info.updated_at)).values()
        return info.updated_at, mark_of(control, annotations)

    def change(annotation: int, **changes: object) -> None:
        answer = httpx.patch(
            f"{label_studio.url}/api/annotations/{annotation}/",
            json=changes,
            headers={"Authorization": f"Token {label_studio.token}"},
            timeout=PATIENCE,
        )
        answer.raise_for_status()

    states = [state()]
    first = dict(client.annotations())[task][0]["id"]
    change(first, result=choice("cat"))
    states.append(state())
    annotator.submit(task, "dog")
    states.append(state())
    change(first, ground_truth=True)
    states.append(state())
    times, marks = zip(*states, strict=True)
    assert list(times) == sorted(set(times))
    dog, cat = marks[:2]
    assert dog != cat
    assert list(marks) == [dog, cat, dog, cat]


def test_predictions_that_do_not_fit_are_omitted_and_counted(
    project: LabelStudioProject, client: LabelStudioClient
) -> None:
    ids = project.import_images(["/data/upload/0.png", "/data/upload/1.png"])
    fitting = [{**CHOICE, "value": {"choices": ["cat"]}}]
    unknown = [{**CHOICE, "value": {"choices": ["unicorn"]}}]
    predictions = [
        {"task": task, "result": result, "score": 0.5, "model_version": "v"}
        for task, result in zip(ids, (fitting, unknown), strict=True)
    ]
    assert client.import_predictions(predictions) == 1
    with pytest.raises(LabelStudioError) as refused:
        client.import_predictions([{**predictions[0], "task": 10**9}])
    assert refused.value.status == 400


def test_predictions_that_come_one_by_one_are_those_of_an_import(
    project: LabelStudioProject, client: LabelStudioClient
) -> None:
    """But Label Studio takes what does not fit, too."""
    ids = project.import_images(["/data/upload/0.png", "/data/upload/1.png"])

    def predictions(version: str, name: str = "cat") -> list[dict[str, Any]]:
        result = [{**CHOICE, "value": {"choices": [name]}}]
        return [
            {"task": task, "result": result, "score": 0.5, "model_version": version} for task in ids
        ]

    assert client.import_predictions(predictions("together")) == 2
    assert client.import_predictions(predictions("alone"), one_by_one=True) == 2
    assert client.prediction_counts() == {"together": 2, "alone": 2}
    found = project.sdk.predictions.list(project=project.number)
    kept = [
        {(p.task, str(p.result), p.score) for p in found if p.model_version == version}
        for version in ("together", "alone")
    ]
    assert kept[0] == kept[1]
    assert project.sdk.tasks.get(id=str(ids[0])).total_predictions == 2
    assert client.import_predictions(predictions("odd", "unicorn"), one_by_one=True) == 2
    with pytest.raises(LabelStudioError) as refused:
        client.import_predictions([{**predictions("v")[0], "task": 10**9}], one_by_one=True)
    assert refused.value.status == 400


def test_the_queue_is_served_and_shown_and_its_tab_is_recreated(
    project: LabelStudioProject, client: LabelStudioClient
) -> None:
    (task,) = project.import_images(["/data/upload/0.png"])
    prediction = {"task": task, "result": [], "score": 0.5, "model_version": "queue 1"}
    with pytest.raises(LabelStudioError):  # a model version that no prediction has
        client.serve("queue 1")
    assert client.import_predictions([prediction]) == 1
    client.serve("queue 1")
    info = client.read_project()
    assert (info.model_version, info.sampling) == ("queue 1", UNCERTAINTY_SAMPLING)
    view = client.show_queue("queue 1", None)
    tabs = project.sdk.views.list(project=project.number)
    assert [tab.data["title"] for tab in tabs] == ["All tasks", "CDAL queue"]
    assert "tasks:annotations_ids" in tabs[1].data["hiddenColumns"]["explore"]
    project.sdk.views.update(id=str(view), data={**tabs[1].data, "type": "grid"})
    assert client.show_queue("queue 2", view) == view
    shown = project.sdk.views.get(id=str(view)).data
    assert shown["type"] == "grid"
    assert [item["value"] for item in shown["filters"]["items"]] == [["queue 2"], 0]
    project.sdk.views.delete(id=str(view))
    assert client.show_queue("queue 3", view) != view
    assert len(project.sdk.views.list(project=project.number)) == 2
    # Tasks that are worth a second look have another.
    second, *_ = project.import_images(["/data/upload/1.png", "/data/upload/2.png"])
    looks = client.show_second_look([second], None)
    for tasks in ([second], [task, second], []):
        assert client.show_second_look(tasks, looks) == looks
        found = project.sdk.tasks.list(view=looks, page_size=100, include="id")
        assert [one.id for one in found] == tasks
