"""The loop against a real Label Studio: who is served what, and what the model is trained on."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from support.held import HeldBackend
from support.processes import PATIENCE

from cdal.backend.loop.pool_scores import Scores
from cdal.datasets import open_images
from cdal.demo.backend import BackendServer
from cdal.demo.unattended import measure, version_folder
from cdal.selectors import Pool, make_selector

pytestmark = [pytest.mark.label_studio, pytest.mark.data]

Make = Callable[..., Any]

BACKBONE = "timm:tf_efficientnet_lite0"


def alternate(scenario: Any, tokens: list[str], count: int) -> list[int]:
    """Label with two people, each holding a task while the other requests one; the order served."""
    people = [scenario.annotator(token) for token in tokens]
    held: list[int | None] = [None, None]
    served: list[int] = []
    for turn in itertools.cycle(range(2)):
        if len(served) == count:
            break
        open_task = held[turn]
        if open_task is not None:
            people[turn].submit(open_task, scenario.truth[open_task])
        held[turn] = people[turn].next_task()
        assert held[turn] is not None
        served.append(held[turn])
    for person, open_task in zip(people, held, strict=True):
        if open_task is not None:
            person.submit(open_task, scenario.truth[open_task])
    return served


def scores_of(scenario: Any, version: int) -> Scores:
    """What the backend has stored of a model version's scores."""
    folder = scenario.backend.data_folder / f"projects/{scenario.status()['id']}/scores/{version}"
    scores = Scores.load(folder)
    assert scores is not None
    return scores


def cdal_cs_order(scenario: Any, version: int, labelled: list[int]) -> list[int]:
    """What CDAL-CS picks from the stored scores, computed without the backend."""
    scores = scores_of(scenario, version)
    ids = scores.task_ids.tolist()
    pool = Pool(
        mixtures=scores.mixtures,
        present=scores.present,
        labelled=torch.tensor([task in labelled for task in ids]),
    )
    picks = make_selector("cdal-cs").select(pool, len(ids) - len(labelled), seed=0).picks
    return [ids[pick.index] for pick in picks]


def test_two_annotators_get_the_selectors_order_through_round_after_round(
    make_scenario: Make, annotators: list[str]
) -> None:
    scenario = make_scenario(60, budget=12, reserve=10, min_labels=4)
    scenario.wait_for_round(1)
    first_queue = scenario.queue()
    assert sorted(first_queue) == sorted(scenario.truth)  # every image is ranked once

    served = alternate(scenario, annotators, 12)
    assert served == first_queue[:12]

    scenario.wait_for_round(2)
    scenario.settle()
    second_queue = scenario.queue()
    assert second_queue == cdal_cs_order(scenario, version=1, labelled=served)
    assert second_queue[:12] != first_queue[12:24]

    served_second = alternate(scenario, annotators, 12)
    assert served_second == second_queue[:12]
    assert not set(served_second) & set(served)

    # Round 1 had no model, so only round 2 had pre-annotations to be kept.
    first, second = scenario.settle()["rounds"][:2]
    assert first["pre_annotations"] is None
    kept = second["pre_annotations"]
    assert kept["unchanged"] + kept["replaced"] == 12
    assert kept["agreement"] == pytest.approx(kept["unchanged"] / 12)

    disputed = served_second[0]
    other = next(name for name in scenario.classes if name != scenario.truth[disputed])
    scenario.annotator(annotators[1]).submit(disputed, other)
    agreement = f"/api/v1/projects/{scenario.status()['id']}/agreement"
    scenario.wait("the second opinion", lambda _: scenario.backend.get(agreement)["tasks"] == 1)
    told = scenario.backend.get(agreement)
    assert [one["others"] for one in told["annotators"]] == [0.0, 0.0]
    assert (told["second_look"][0]["task"], told["second_look"][0]["agreement"]) == (disputed, 0)

    def shown(_: Any) -> bool:
        """Whether the Data Manager's tab has the task."""
        views = scenario.project.sdk.views.list(project=scenario.number)
        tabs = [view for view in views if view.data["title"] == "Worth a second look"]
        tasks = scenario.project.sdk.tasks.list(view=tabs[0].id, include="id") if tabs else ()
        return disputed in [task.id for task in tasks]

    scenario.wait("a second look in the Data Manager", shown)


def test_the_data_manager_tab_shows_the_queue_in_order(make_scenario: Make) -> None:
    scenario = make_scenario(20)
    scenario.wait_for_round(1)
    queue = scenario.queue()
    scenario.label(queue[:2])
    scenario.settle()

    views = scenario.project.sdk.views.list(project=scenario.number)
    tabs = [view for view in views if view.data["title"] == "CDAL queue"]
    assert len(tabs) == 1
    shown = scenario.project.sdk.tasks.list(view=tabs[0].id, page_size=100, include="id")
    assert [task.id for task in shown] == queue[2:14]  # budget 8 and reserve 6, two labelled


def test_people_go_on_in_order_while_the_model_trains(
    make_scenario: Make, held_backend: HeldBackend
) -> None:
    """Once the budget is labelled a training begins, and meanwhile nobody is served at random."""
    scenario = make_scenario(100, server=held_backend, budget=6, reserve=None, min_labels=4)
    scenario.wait_for_round(1)
    queue = scenario.queue()
    with held_backend.trainings.held():
        served = scenario.label_stream(6)
        held_backend.trainings.wait_for_training()
        # Far more than budget and reserve: the queue is topped up in rank order meanwhile.
        while len(served) < 60:
            served += scenario.label_stream(9)
            scenario.wait("a topped-up queue", _has_taken_in(len(served)))
        assert served == queue[:60]
        assert scenario.status()["versions"] == []

    status = scenario.wait_for_round(2)
    assert status["versions"][0]["labels"] == 6
    # What was labelled meanwhile is in the next training, once.
    scenario.label_stream(6)
    status = scenario.wait("model", lambda s: len(s["versions"]) > 1)
    assert status["versions"][1]["labels"] == 66


def test_the_order_is_that_of_the_newest_model_while_people_label(
    make_scenario: Make, annotators: list[str]
) -> None:
    """A head retrains every five labels, and the order changes under two people's hands."""
    scenario = make_scenario(
        80, budget=60, reserve=12, min_labels=4, network=BACKBONE, image_size=64, train_every=5
    )
    scenario.wait_for_round(1)
    people = [scenario.annotator(token) for token in annotators]
    held = [person.next_task() for person in people]
    served = list(held)
    for turn in range(30):
        person, task = people[turn % 2], held[turn % 2]
        person.submit(task, scenario.truth[task])
        if turn % 10 == 9:  # the others come while models train and orders are written
            scenario.wait("rest", _has_learnt_from(scenario, turn + 1))
        held[turn % 2] = person.next_task()
        assert held[turn % 2] is not None  # nobody is left without a task
        served.append(held[turn % 2])
    assert len(set(served)) == len(served)  # nobody is served a task twice

    for person, task in zip(people, held, strict=True):
        person.submit(task, scenario.truth[task])
    status = scenario.wait("rest", _has_learnt_from(scenario, 32))
    (only,) = status["rounds"]  # its budget is not met
    assert only["refreshes"] >= 3
    assert status["progress"] == {"round": 1, "labels": 32, "budget": 60}
    assert status["versions"][-1]["labels"] >= 28
    # The stream follows the newest order, whose predictions are the newest serving model's.
    queue = scenario.queue()
    labelled = [task for task in scenario.truth if task not in queue]
    assert queue == cdal_cs_order(scenario, only["version"], labelled)
    given = [
        prediction
        for prediction in scenario.project.sdk.predictions.list(project=scenario.number)
        if prediction.model_version == status["queue_version"]
    ]
    ours = [p.task for p in sorted(given, key=lambda p: p.score)]
    assert ours == queue[: len(ours)]
    assert len(ours) >= 12
    scores = scores_of(scenario, only["version"])
    best = dict(zip(scores.task_ids.tolist(), scores.probabilities.argmax(1), strict=True))
    for prediction in given:
        (region,) = prediction.result
        assert region["value"]["choices"] == [scenario.classes[best[prediction.task]]]
    waiting = [task for task in queue if task not in served]
    assert scenario.label_stream(3) == waiting[:3]


def test_updated_deleted_and_bulk_created_annotations_are_noticed(make_scenario: Make) -> None:
    scenario = make_scenario(40, min_labels=30)  # no training comes in between
    scenario.wait_for_round(1)
    tasks = list(scenario.truth)
    scenario.label(tasks[:5])
    scenario.wait("labels", lambda s: s["labelled"] == 5)

    sdk = scenario.project.sdk
    annotation = next(iter(sdk.annotations.list(id=tasks[0])))
    sdk.annotations.delete(id=annotation.id)
    scenario.wait("deletion", lambda s: s["labelled"] == 4)

    httpx.post(
        f"{scenario.label_studio.url}/api/dm/actions",
        params={"id": "delete_tasks_annotations", "project": scenario.number},
        json={"selectedItems": {"all": False, "included": tasks[1:3]}},
        headers={"Authorization": f"Token {scenario.label_studio.token}"},
        timeout=PATIENCE,
    ).raise_for_status()
    scenario.wait("bulk deletion", lambda s: s["labelled"] == 2)

    choice = {"from_name": "label", "to_name": "image", "type": "choices"}
    sdk.projects.import_tasks(
        id=scenario.number,
        request=[
            {
                "data": {"image": f"/data/local-files/?d=cifar/none-{number}.jpg"},
                "annotations": [{"result": [{**choice, "value": {"choices": ["airplane"]}}]}],
            }
            for number in range(3)
        ],
    )
    status = scenario.wait("bulk creation", lambda s: s["labelled"] == 5)
    assert status["tasks"] == 43

    sdk.tasks.delete(id=str(tasks[30]))
    scenario.wait("deleted task", lambda s: s["tasks"] == 42)


def test_a_changed_label_is_trained_on_as_changed(make_scenario: Make) -> None:
    """All labels but one are of one class; changing that one leaves nothing to train on."""
    scenario = make_scenario(20, classes=2, budget=10, min_labels=4, connect=False)
    tasks = list(scenario.truth)[:8]
    annotator = scenario.annotator()
    for task in tasks[:7]:
        annotator.submit(task, "airplane")
    annotator.submit(tasks[7], "automobile")
    sdk = scenario.project.sdk
    annotation = next(iter(sdk.annotations.list(id=tasks[7])))
    choice = {"from_name": "label", "to_name": "image", "type": "choices"}
    sdk.annotations.update(
        id=annotation.id, result=[{**choice, "value": {"choices": ["airplane"]}}]
    )
    scenario.connect()
    status = scenario.wait_for_round(1)
    assert status["versions"] == []
    assert "one class" in status["rounds"][0]["cold_start"]

    sdk.annotations.update(
        id=annotation.id, result=[{**choice, "value": {"choices": ["automobile"]}}]
    )
    scenario.project.start_training(scenario.connection)
    scenario.wait("model", lambda s: len(s["versions"]) == 1)


def test_predictions_are_stored_with_the_queue_and_retrieved_at_once(
    make_scenario: Make, new_backend: BackendServer
) -> None:
    """On the real command."""
    scenario = make_scenario(30, server=new_backend, budget=8, reserve=4, min_labels=4)
    scenario.wait_for_round(1)
    scenario.label_stream(8)
    status = scenario.wait_for_round(2)
    version = status["queue_version"]
    predictions = [
        prediction
        for prediction in scenario.project.sdk.predictions.list(project=scenario.number)
        if prediction.model_version == version
    ]
    queue = scenario.queue()
    assert [p.task for p in sorted(predictions, key=lambda p: p.score)] == queue[:12]
    for prediction in predictions:
        (region,) = prediction.result
        assert region["value"]["choices"][0] in scenario.classes
        assert 0 < region["score"] <= 1

    # "Retrieve predictions" for all: what is queued is not requested again, and the rest follows.
    httpx.post(
        f"{scenario.label_studio.url}/api/dm/actions",
        params={"id": "retrieve_tasks_predictions", "project": scenario.number},
        json={"selectedItems": {"all": True, "excluded": []}},
        headers={"Authorization": f"Token {scenario.label_studio.token}"},
        timeout=PATIENCE,
    ).raise_for_status()
    now = Counter(
        prediction.task
        for prediction in scenario.project.sdk.predictions.list(project=scenario.number)
        if prediction.model_version == version
    )
    assert now == Counter(list(scenario.truth))
    assert scenario.label_stream(1) == queue[:1]


def test_the_simulated_loop_learns(make_scenario: Make, cifar10: Path) -> None:
    """300 CIFAR-10 images of ten classes, three rounds of a head on a frozen backbone."""
    scenario = make_scenario(
        300,
        classes=10,
        budget=40,
        min_labels=20,
        network=BACKBONE,
        image_size=96,
        train_every=40,
    )
    for number in range(1, 4):
        scenario.wait_for_round(number)
        scenario.label(scenario.queue()[:40])
    status = scenario.wait("third model", lambda s: len(s["versions"]) == 3)
    assert status["versions"][-1]["labels"] == 120
    images = open_images(cifar10)
    folder = version_folder(scenario.backend.data_folder, status["id"], status["serving_version"])
    test = random.Random(1).sample(images.test, 300)
    accuracy = measure(folder, images, test).values["accuracy"]
    # Guessing gives 0.100 with a standard error of 0.017 on 300 images, and a network that learns
    # from scratch below 0.3, also from 300 labels.
    assert accuracy > 0.5


def _has_learnt_from(scenario: Any, labels: int) -> Callable[[dict[str, Any]], bool]:
    """Whether this many labels were noticed, and all that they cause is done."""
    return lambda status: status["labelled"] == labels and scenario.is_idle(status)


def _has_taken_in(labels: int) -> Callable[[dict[str, Any]], bool]:
    """Whether this many labels were noticed and all that follows, except training, is done."""
    return lambda status: (
        status["labelled"] == labels
        and not any(
            job["kind"] != "train" and job["state"] in ("pending", "running")
            for job in status["jobs"]
        )
    )
