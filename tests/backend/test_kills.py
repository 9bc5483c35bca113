"""SIGKILL at any point, against a real Label Studio: nothing is lost or done twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kills import (
    KillableBackend,
    TwoWorkers,
    check_all_labels_are_trained_on,
    check_invariants,
    drive,
    label_some,
)
from support.scenario import Scenario
from support.servers import PostgreSQL

from cdal.backend.jobs.manager import MAX_DEATHS
from cdal.demo.label_studio import LabelStudioServer

pytestmark = [pytest.mark.label_studio, pytest.mark.data]

Make = Callable[..., Any]

SETTINGS = {"budget": 4, "reserve": 3, "min_labels": 4, "epochs": 1, "image_size": 32}

# One of each kind; an undisturbed round passes many more.
SOME = (
    "after rename in versions._put_in_place of train",
    "after commit in score._save of score",
    "before commit in queue._new_edition of queue",
    "after import_predictions in queue._import of queue",
    "after serve in queue.run of queue",
)


@pytest.fixture
def killable(tmp_path: Path, label_studio: LabelStudioServer) -> Iterator[KillableBackend]:
    made = KillableBackend(tmp_path, label_studio)
    made.start_web()
    yield made
    made.stop()


def test_a_few_kills(make_scenario: Make, killable: KillableBackend) -> None:
    scenario = make_scenario(120, server=killable, **SETTINGS)
    for fatal in SOME:
        killable.start_worker(fatal)
        assert drive(scenario, killable, fatal)
    killable.kill_web()
    killable.start_web()
    killable.start_worker()
    label_some(scenario, scenario.annotator(), 2)
    check_invariants(scenario, killable)
    assert killable.times_resumed() == killable.worker_kills
    check_all_labels_are_trained_on(scenario)


def kill_at_random(scenario: Scenario, killable: KillableBackend, turns: int) -> None:
    """Kill the worker, the web process or both at random moments."""
    annotator = scenario.annotator()
    draws = random.Random(0)
    for turn in range(turns):
        if not killable.worker_runs():
            killable.start_worker()
        if turn % MAX_DEATHS == MAX_DEATHS // 2:
            scenario.settle(400)  # or a job whose worker died so often would be given up
        label_some(scenario, annotator, 5)
        time.sleep(draws.uniform(0, 6))
        victims = ("worker", "web", "both")[turn % 3]
        if victims != "worker":
            killable.kill_web()
        if victims != "web":
            killable.kill_worker()
        if victims != "worker":
            killable.start_web()


@pytest.mark.endurance
@pytest.mark.timeout(7200)
def test_kills_at_every_transition_and_at_random_moments(
    make_scenario: Make, killable: KillableBackend
) -> None:
    kill_everywhere(make_scenario(600, server=killable, **SETTINGS), killable)


@pytest.mark.endurance
@pytest.mark.timeout(7200)
def test_kills_of_two_workers_on_postgresql(
    make_scenario: Make, tmp_path: Path, label_studio: LabelStudioServer, postgresql: PostgreSQL
) -> None:
    """One of two dies, and the other takes its jobs over, or both die."""
    backend = TwoWorkers(tmp_path, label_studio, postgresql.new_store())
    backend.start_web()
    try:
        kill_everywhere(make_scenario(600, server=backend, **SETTINGS), backend)
    finally:
        backend.stop()


def kill_everywhere(scenario: Scenario, killable: KillableBackend) -> None:
    """Kill the worker at each point of a round, then both processes at random moments."""
    killable.start_worker()
    for number in (1, 2, 3):
        scenario.wait_for_round(number, 400)
        scenario.label_stream(5)
    scenario.settle(400)
    points = killable.points()
    killable.kill_worker("at rest")
    for fatal in points:
        if " of " not in fatal:  # not part of a job
            continue
        killable.start_worker(fatal)
        if not drive(scenario, killable, fatal, most_labels=12):  # a rare point
            killable.kill_worker(f"waiting for {fatal}")
    kill_at_random(scenario, killable, 24)
    if killable.worker_runs():
        killable.kill_worker()
    killable.start_worker()
    label_some(scenario, scenario.annotator(), 2)
    check_invariants(scenario, killable)
    check_all_labels_are_trained_on(scenario)
    total = sum(killable.kills.values())
    print(f"{total} kills:", *sorted(killable.kills), sep="\n")
    assert total >= 60
