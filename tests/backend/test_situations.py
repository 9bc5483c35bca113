"""Situations of a project, each with a sensible outcome, against a real Label Studio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from support.held import HeldBackend
from support.processes import PATIENCE

from cdal.demo.backend import BackendServer

pytestmark = [pytest.mark.label_studio, pytest.mark.data]

Make = Callable[..., Any]


def test_start_training_during_a_training_trains_once_more_on_what_came_since(
    make_scenario: Make, held_backend: HeldBackend
) -> None:
    scenario = make_scenario(40, server=held_backend, budget=30, min_labels=4)
    scenario.wait_for_round(1)
    scenario.label_stream(6)
    with held_backend.trainings.held():
        scenario.project.start_training(scenario.connection)
        held_backend.trainings.wait_for_training()
        scenario.label_stream(2)
        for _ in range(3):  # people press a button again when nothing seems to happen
            scenario.project.start_training(scenario.connection)
    status = scenario.wait("second model", lambda s: len(s["versions"]) == 2)
    assert [version["labels"] for version in status["versions"]] == [6, 8]
    status = scenario.settle()
    assert sum(job["kind"] == "train" for job in status["jobs"]) == 2


def test_start_training_with_nothing_new_says_so_and_keeps_the_queue(make_scenario: Make) -> None:
    scenario = make_scenario(30, budget=20, min_labels=4)
    scenario.wait_for_round(1)
    scenario.label_stream(6)
    scenario.project.start_training(scenario.connection)
    scenario.wait("a refreshed order", lambda s: s["rounds"][-1]["refreshes"] == 1)
    before = scenario.settle()
    scenario.project.start_training(scenario.connection)
    status = scenario.wait(
        "second training", lambda s: sum(_is(j, "train", "done") for j in s["jobs"]) == 2
    )
    newest = next(job for job in status["jobs"] if job["kind"] == "train")
    assert "nothing has changed" in newest["outcome"]
    assert len(status["versions"]) == 1
    assert status["queue_version"] == before["queue_version"]


def test_a_webhook_for_an_unknown_project_is_ignored(backend: BackendServer) -> None:
    answer = httpx.post(
        f"{backend.url}/webhook",
        json={"action": "ANNOTATION_CREATED", "project": {"id": 999_999}},
        timeout=PATIENCE,
    )
    assert answer.status_code == 200
    assert answer.json()["status"] == "ignored"


def test_start_training_without_labels_says_what_is_missing(make_scenario: Make) -> None:
    scenario = make_scenario(12, min_labels=5)
    scenario.wait_for_round(1)
    queue = scenario.queue()
    scenario.project.start_training(scenario.connection)
    status = scenario.wait("training", lambda s: any(_is(j, "train", "done") for j in s["jobs"]))
    outcome = next(job["outcome"] for job in status["jobs"] if job["kind"] == "train")
    assert outcome == "not trained: There are 0 of at least 5 labels."
    status = scenario.settle()
    assert status["versions"] == []
    assert scenario.queue() == queue  # the open round goes on


def test_a_project_without_tasks_waits_and_begins_when_tasks_come(make_scenario: Make) -> None:
    scenario = make_scenario(0)
    status = scenario.wait("sync", lambda s: any(_is(j, "sync", "done") for j in s["jobs"]))
    assert status["rounds"] == []
    donor = make_scenario(5, connect=False)
    addresses = [task.data["image"] for task in donor.project.sdk.tasks.list(project=donor.number)]
    scenario.project.import_images(addresses)
    status = scenario.wait_for_round(1)
    assert status["tasks"] == 5


def test_one_task(make_scenario: Make) -> None:
    scenario = make_scenario(1, extra_class="unicorn")
    scenario.wait_for_round(1)
    assert scenario.label_stream(1) == list(scenario.truth)
    status = scenario.settle()
    assert status["labelled"] == 1
    assert status["problem"] is None
    assert scenario.annotator().next_task() is None


def test_every_task_labelled_ends_the_loop_with_a_model_of_all(make_scenario: Make) -> None:
    scenario = make_scenario(14, budget=10, min_labels=4)
    scenario.wait_for_round(1)
    scenario.label_stream(14)
    status = scenario.wait(
        "a model of all labels",
        lambda s: s["versions"] and s["versions"][-1]["labels"] == 14 and scenario.is_idle(s),
    )
    assert status["rounds"][-1]["state"] == "closed"
    assert status["problem"] is None


def test_labels_that_were_there_before_are_trained_on_first(make_scenario: Make) -> None:
    scenario = make_scenario(30, min_labels=4, connect=False)
    scenario.label(list(scenario.truth)[:10])
    scenario.connect()
    status = scenario.wait_for_round(1)
    assert status["versions"][0]["labels"] == 10
    assert status["rounds"][0]["selector"] == "cdal-cs"


def test_a_label_without_an_example_is_no_obstacle(make_scenario: Make) -> None:
    scenario = make_scenario(24, extra_class="unicorn", min_labels=4)
    scenario.wait_for_round(1)
    scenario.label_stream(8)
    status = scenario.wait_for_round(2)
    assert status["versions"][0]["promoted"]
    assert status["problem"] is None


def test_images_that_are_missing_are_left_out_with_their_reason(make_scenario: Make) -> None:
    scenario = make_scenario(24, budget=6, min_labels=4)
    missing = scenario.project.import_images(["/data/local-files/?d=cifar/missing.jpg"])
    scenario.wait("import", lambda s: s["tasks"] == 25)
    scenario.wait_for_round(1)
    scenario.label([task for task in scenario.queue() if task in scenario.truth][:7])
    scenario.wait_for_round(2)
    status = scenario.settle()
    assert missing[0] not in scenario.queue()
    score = next(job for job in status["jobs"] if job["kind"] == "score")
    assert "1 left out" in score["outcome"]


def test_skipped_images_do_not_hold_a_round_up_and_stay_for_others(
    make_scenario: Make, annotators: list[str]
) -> None:
    scenario = make_scenario(30, budget=8, reserve=3, min_labels=4)
    scenario.wait_for_round(1)
    queue = scenario.queue()
    one, other = (scenario.annotator(token) for token in annotators)
    for task in queue[:4]:
        assert one.next_task() == task
        one.skip(task)
    # Whoever skipped is served what comes next; the others all of it.
    assert one.next_task() == queue[4]
    assert other.next_task() == queue[0]
    scenario.label(queue[4:11], one)
    scenario.label(queue[:1], other)
    status = scenario.wait_for_round(2)
    assert status["versions"][0]["labels"] == 8
    assert set(queue[1:4]) <= set(scenario.queue())


@pytest.mark.parametrize(
    ("selector", "options"),
    # The others, without a Label Studio: loop/test_select.py. TypiClust makes each first round.
    [("random", {}), ("cdal-rl", {"epochs": 2})],
)
def test_other_selectors_make_rounds_too(
    make_scenario: Make, selector: str, options: dict[str, Any]
) -> None:
    scenario = make_scenario(60, min_labels=4, selector=selector, selector_options=options)
    scenario.wait_for_round(1)
    scenario.label_stream(8)
    status = scenario.wait_for_round(2)
    assert status["rounds"][-1]["selector"] == selector
    queue = scenario.queue()
    assert len(set(queue)) == len(queue) == 52  # all that is unlabelled is ranked, once
    assert scenario.label_stream(3) == queue[:3]


def test_training_every_few_labels(make_scenario: Make) -> None:
    scenario = make_scenario(40, budget=30, min_labels=4, train_every=5)
    scenario.wait_for_round(1)
    scenario.label_stream(5)
    status = scenario.wait("a refreshed order", lambda s: s["rounds"][-1]["refreshes"] == 1)
    assert status["versions"][0]["labels"] == 5
    assert (len(status["rounds"]), status["progress"]["labels"]) == (1, 5)


def _is(job: dict[str, Any], kind: str, state: str) -> bool:
    return bool(job["kind"] == kind and job["state"] == state)
