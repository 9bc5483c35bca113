"""A clock that was ahead: what was recorded then must freeze nothing once it is right again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from support.offline import (
    FakeLabelStudio,
    add_failure,
    add_project,
    add_round,
    add_tasks,
    jobs_of,
    make_services,
    make_work,
)

from cdal.backend.errors import ImageError, ImagesAwayError, LabelStudioError
from cdal.backend.jobs.waits import LONGEST_WAIT_S, must_wait_s
from cdal.backend.jobs.workers import seconds_since_beat
from cdal.backend.loop import prune, recheck, runner
from cdal.backend.loop.changes import read_changes
from cdal.backend.loop.context import Context
from cdal.backend.loop.due import read_facts
from cdal.backend.loop.image_problems import refuse_if_away
from cdal.backend.loop.labelled_set import Labels, note_unread
from cdal.backend.reports.health import worker_view
from cdal.backend.reports.state import state_view
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.tables import Event, Job, Project, Task, Worker, now

AHEAD = timedelta(days=30)


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def project(services: Services) -> Project:
    return add_project(services)


@pytest.mark.parametrize(("ahead", "alive"), [(timedelta(seconds=5), True), (AHEAD, False)])
def test_a_heartbeat_from_the_future_says_nothing(
    services: Services, ahead: timedelta, alive: bool
) -> None:
    """Another machine's clock may be ahead by seconds."""
    with services.store.transaction() as session:
        at = now() + ahead
        session.add(
            Worker(id=1, host="h", machine="m", folder="f", pid=1, started_at=at, seen_at=at)
        )
        session.flush()
        assert worker_view(session).alive is alive
        assert (seconds_since_beat(session) or 0) > 0


def test_a_job_that_was_put_off_for_weeks_runs_and_swallows_no_webhook(
    services: Services, project: Project
) -> None:
    job_id = services.jobs.ask(project.id, "train", "test")
    with services.store.transaction() as session:
        session.get_one(Job, job_id).not_before = now() + AHEAD
    with services.store.reading() as session:
        assert "is waiting for its turn" in state_view(session, project).text
        assert must_wait_s(session.get_one(Job, job_id)) == 0
    assert services.jobs.ask(project.id, "train", "a webhook") == job_id
    assert services.jobs.claim(job_id) is not None


def test_a_job_that_waits_as_long_as_jobs_do_still_waits(
    services: Services, project: Project
) -> None:
    job_id = services.jobs.ask(project.id, "sync", "test")
    with services.store.transaction() as session:
        session.get_one(Job, job_id).not_before = now() + timedelta(seconds=LONGEST_WAIT_S)
    assert services.jobs.claim(job_id) is None


@pytest.mark.parametrize("module", [prune, recheck])
def test_upkeep_goes_on_and_is_not_repeated_at_every_poll(
    services: Services, project: Project, module: object
) -> None:
    kind = "prune" if module is prune else "recheck"
    add_tasks(services, project, [1], image_problem="It is gone.")
    work = make_work(services, project, FakeLabelStudio())
    with services.store.transaction() as session:
        known = {"project_id": project.id, "kind": kind, "asked_by": "test"}
        session.add(Job(**known, state="done", created_at=now() + AHEAD))
    for _ in range(3):
        with services.store.transaction() as session:
            module.request_if_due(work, session)  # type: ignore[attr-defined]
        with services.store.transaction() as session:
            for job in session.scalars(select(Job).filter_by(state="pending")):
                job.state = "done"
    assert jobs_of(services)[1:] == [(kind, "done")] * 2


def test_a_round_that_failed_in_the_future_is_tried_again(
    services: Services, project: Project
) -> None:
    add_round(services, project, [], state="queueing")
    job = services.jobs.ask(project.id, "queue", "test")
    add_failure(services, job, "Label Studio was away.")
    with services.store.transaction() as session:
        assert read_facts(session, project.id, ProjectSettings()).round_just_failed
        session.get_one(Job, job).finished_at = now() + AHEAD
        session.flush()
        assert not read_facts(session, project.id, ProjectSettings()).round_just_failed


def test_a_job_from_the_future_does_not_wait_for_images_for_weeks(
    services: Services, project: Project
) -> None:
    work = make_work(services, project, FakeLabelStudio(), "score")
    away = {1: ImageError("It is away.", passes=True)}
    with pytest.raises(ImagesAwayError):
        refuse_if_away(work, away, 2)
    work.job.created_at = now() + AHEAD
    refuse_if_away(work, away, 2)


def test_a_job_from_the_future_that_fails_is_not_tried_every_few_seconds(
    services: Services, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Context) -> str:
        raise LabelStudioError("Label Studio did not answer.")

    monkeypatch.setitem(runner.HANDLERS, "sync", fail)  # type: ignore[attr-defined]
    job_id = services.jobs.ask(project.id, "sync", "test")
    with services.store.transaction() as session:
        session.get_one(Job, job_id).created_at = now() + AHEAD
    begun = now()
    runner.run_job(services, job_id, lambda: False)
    with services.store.reading() as session:
        tried_again = session.get_one(Job, job_id).not_before
    assert tried_again is not None
    assert tried_again - begun >= timedelta(seconds=LONGEST_WAIT_S)


def test_an_event_from_the_future_silences_no_other(services: Services, project: Project) -> None:
    """What cannot be read is said once per day."""

    def say() -> list[Event]:
        labels = Labels({}, {1: ("damaged",)}, {})
        note_unread(make_work(services, project, FakeLabelStudio()), labels)
        with services.store.reading() as session:
            return list(session.scalars(select(Event)))

    assert len(say()) == len(say()) == 1
    with services.store.transaction() as session:
        session.scalars(select(Event)).one().created_at = now() + AHEAD
    assert len(say()) == len(say()) == 2


def test_changes_that_came_after_a_time_ahead_are_read(
    services: Services, project: Project
) -> None:
    """Otherwise only what changed in the seconds before each look would be."""
    label_studio = FakeLabelStudio()
    label_studio.add_tasks([1, 2])
    label_studio.label(2, at=f"{now() + AHEAD:%Y-%m-%dT%H:%M:%S.%fZ}")
    read_changes(make_work(services, project, label_studio))
    with services.store.transaction() as session:
        seen = session.get_one(Project, project.id).changes_seen
        assert seen is not None
        assert seen <= f"{now():%Y-%m-%dT%H:%M:%S.%fZ}"
        session.get_one(Project, project.id).changes_seen = "2126-01-01T00:00:00.000000Z"
    label_studio.label(1, annotations=0, skips=1, at=f"{now():%Y-%m-%dT%H:%M:%S.%fZ}")
    read_changes(make_work(services, project, label_studio, "score"))
    with services.store.reading() as session:
        assert session.get_one(Task, (project.id, 1)).skips == 1
