"""What a project is doing, in words."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.offline import add_project, add_round, add_tasks, make_services

from cdal.backend.jobs import waits
from cdal.backend.reports import jobs
from cdal.backend.reports.state import StateView, state_view
from cdal.backend.services import Services
from cdal.backend.store.tables import Job, Project, now

NOW = now() - timedelta(days=1)


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matter how long a test takes, its jobs began as long ago as it says."""
    for module in (jobs, waits):
        monkeypatch.setattr(module, "now", lambda: NOW)


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def project(services: Services) -> Project:
    return add_project(services)


def state(services: Services, project: Project) -> StateView:
    with services.store.reading() as session:
        return state_view(session, session.get_one(Project, project.id))


def add_job(services: Services, project: Project, kind: str, **changes: Any) -> None:
    with services.store.transaction() as session:
        session.add(Job(project_id=project.id, kind=kind, asked_by="test", **changes))


def running(progress: float, seconds: float) -> dict[str, Any]:
    began = NOW - timedelta(seconds=seconds)
    return {"state": "running", "progress": progress, "started_at": began}


def test_a_training_with_its_share_and_the_time_left(services: Services, project: Project) -> None:
    add_tasks(services, project, [1, 2])
    add_job(services, project, "sync", state="running")
    add_job(services, project, "train", **running(0.43, 90))
    said = state(services, project)
    assert said.text == "training, 43%, about 2 minutes left"
    assert (said.doing, said.share) == ("working", 0.43)
    assert said.seconds_left == round(90 * 0.57 / 0.43, 1)


def test_what_has_just_begun_is_not_foretold(services: Services, project: Project) -> None:
    add_job(services, project, "score", **running(0.01, 1))
    assert state(services, project).text == "scoring, just started"


def test_a_job_that_runs_is_told_rather_than_one_that_waits(
    services: Services, project: Project
) -> None:
    add_job(services, project, "train", state="pending")
    assert state(services, project).text == "training is waiting for its turn"
    add_job(services, project, "queue", **running(0.5, 1))
    assert state(services, project).text == "queueing, 50%, a few seconds left"


def test_a_job_that_failed_is_tried_again(services: Services, project: Project) -> None:
    later = NOW + timedelta(seconds=80)
    add_job(services, project, "queue", state="pending", not_before=later, error="It was away.")
    assert state(services, project).text == "queueing failed and will be tried again in 1 minute"


def test_a_job_that_made_room_for_another_has_not_failed(
    services: Services, project: Project
) -> None:
    soon = NOW + timedelta(seconds=5)
    add_job(services, project, "score", state="pending", not_before=soon)
    assert state(services, project).text == "scoring is waiting for its turn"


@pytest.mark.parametrize("kind", ["sync", "comparison", "pool_map"])
def test_what_moves_no_round_on_is_not_told(
    services: Services, project: Project, kind: str
) -> None:
    add_tasks(services, project, [1, 2, 3])
    add_round(services, project, [1, 2, 3], queued=3, budget=2)
    add_job(services, project, kind, **running(0.5, 1))
    assert state(services, project).text == "waiting for 2 labels of round 1"


def test_labels_of_a_round_are_counted_down(services: Services, project: Project) -> None:
    add_tasks(services, project, [1], annotations=1)
    add_tasks(services, project, [2], skips=1)
    add_tasks(services, project, range(3, 20))
    add_round(services, project, range(1, 20), queued=10, budget=12, number=4)
    assert state(services, project).text == "waiting for 11 labels of round 4"
    with services.store.transaction() as session:
        session.get_one(Project, project.id).skip_queue = "IGNORE_SKIPPED"
    assert state(services, project).text == "waiting for 10 labels of round 4"
    assert state(services, project).doing == "labelling"


def test_a_round_that_is_labelled_waits_for_a_training(
    services: Services, project: Project
) -> None:
    add_tasks(services, project, [1, 2], annotations=1)
    add_tasks(services, project, [3])
    add_round(services, project, [1, 2, 3], queued=3, budget=2)
    assert (
        state(services, project).text == "round 1 is labelled; the next training is about to start"
    )


def test_a_pause(services: Services, project: Project) -> None:
    add_tasks(services, project, [1, 2, 3])
    with services.store.transaction() as session:
        session.get_one(Project, project.id).paused_at = now()
    assert state(services, project).text == "paused; no round starts until it is resumed"
    add_round(services, project, [1, 2, 3], queued=3, budget=1)
    assert state(services, project).text == "paused, with 1 label of round 1 still wanted"


def test_the_beginning_and_the_end(services: Services, project: Project) -> None:
    assert state(services, project).text == ("there are no images yet; import some in Label Studio")
    add_tasks(services, project, [1], annotations=1)
    assert state(services, project).text == "every usable image is labelled"
    add_tasks(services, project, [2])
    assert state(services, project).text == "the next round is about to start"
