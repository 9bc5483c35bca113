"""A project's report."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.offline import add_project, add_round, add_tasks, add_version, make_services

from cdal.backend.reports.project import project_view
from cdal.backend.reports.queue import QueueView, queue_view
from cdal.backend.services import Services
from cdal.backend.store.tables import ModelVersion, Project


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


def test_a_project_that_has_just_been_connected(services: Services) -> None:
    project = add_project(services, access_token="handed-over-token")
    with services.store.reading() as session:
        view = project_view(session, project)
        assert queue_view(session, project) == QueueView(round=None, selector=None, picks=[])
    assert (view.tasks, view.labelled, view.serving_version) == (0, 0, None)
    assert (view.versions, view.rounds, view.jobs) == ([], [], [])
    assert "handed-over-token" not in view.model_dump_json()


def test_versions_rounds_jobs_and_the_queue(services: Services) -> None:
    project = add_project(services)
    add_tasks(services, project, [4, 5, 6])
    add_tasks(services, project, [7], annotations=2)
    version = add_version(services, project)
    add_round(services, project, [4], state="closed", number=1)
    add_round(
        services,
        project,
        [6, 5],
        queued=1,
        number=2,
        model_version_id=version.id,
        queue_version="CDAL round 2.1",
    )
    services.jobs.ask(project.id, "train", "test")
    with services.store.reading() as session:
        project = session.get_one(Project, project.id)
        view = project_view(session, project)
        queue = queue_view(session, project)
    assert (view.tasks, view.labelled) == (4, 1)
    assert (view.queue_version, view.serving_version) == ("CDAL round 2.1", 1)
    assert [(v.metric, v.value) for v in view.versions] == [("accuracy", 0.75)]
    assert [(r.number, r.state, r.version) for r in view.rounds] == [
        (1, "closed", None),
        (2, "open", 1),
    ]
    assert [(j.kind, j.state, j.asked_by) for j in view.jobs] == [("train", "pending", "test")]
    assert queue.round == 2
    assert [(p.rank, p.task, p.state) for p in queue.picks] == [
        (0, 6, "queued"),
        (1, 5, "ranked"),
    ]


def test_a_version_says_what_it_began_from(services: Services) -> None:
    project = add_project(services)
    first, second = (add_version(services, project, number=number) for number in (1, 2))
    origin = {
        "name": "ResNet18_Weights.IMAGENET1K_V1",
        "source": "the weights folder/resnet18-f37072fd.pth",
        "sha256": "f37072fd" * 8,
        "shortfall": "",
    }
    with services.store.transaction() as session:
        session.get_one(ModelVersion, second.id).origin = origin
        session.get_one(ModelVersion, second.id).started_from = first.id
    with services.store.reading() as session:
        earlier, later = project_view(session, session.get_one(Project, project.id)).versions
    assert (earlier.origin, earlier.started_from) == (None, None)
    assert later.origin is not None
    assert (later.origin.model_dump(), later.started_from) == (origin, 1)


def test_only_the_newest_jobs_are_told(services: Services) -> None:
    project = add_project(services)
    for _ in range(25):
        services.jobs.finish(services.jobs.ask(project.id, "train", "test"), "done")
    with services.store.reading() as session:
        jobs = project_view(session, project).jobs
    assert [job.id for job in jobs] == list(range(25, 5, -1))
