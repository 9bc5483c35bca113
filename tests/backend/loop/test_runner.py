"""Running jobs: what is tried again, what fails, what is recorded.

The handlers are fakes: each does one thing that a real one might do.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from support.offline import add_project, add_round, job_of, jobs_of, make_services

from cdal.backend.errors import ImageError, ImagesAwayError, LabelingError, LabelStudioError
from cdal.backend.jobs import manager
from cdal.backend.jobs.faults import fault_of
from cdal.backend.jobs.manager import MAX_ATTEMPTS
from cdal.backend.loop import runner as run_module
from cdal.backend.loop.context import Context
from cdal.backend.loop.runner import HANDLERS, run_job
from cdal.backend.services import Services
from cdal.backend.store.tables import Event, Job, Project, Round
from cdal.models import ModelError, Stopped

Behave = Callable[[Callable[[Context], str]], None]


@pytest.fixture
def services(tmp_path: Path) -> Services:
    made = make_services(tmp_path)
    add_project(made)
    return made


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Behave:
    """Make every kind of job do what the test says."""

    def behave(does: Callable[[Context], str]) -> None:
        monkeypatch.setattr(run_module, "HANDLERS", dict.fromkeys(HANDLERS, does))

    return behave


def raises(error: Exception) -> Callable[[Context], str]:
    def fail(_: Context) -> str:
        raise error

    return fail


def run(services: Services, job_id: int = 1) -> Job:
    run_job(services, job_id, lambda: False)
    return job_of(services, job_id)


def problem_of(services: Services) -> str | None:
    with services.store.reading() as session:
        return session.get_one(Project, 1).problem


def let_time_pass(services: Services, job_id: int = 1, hours: float = 1) -> None:
    with services.store.transaction() as session:
        job = session.get_one(Job, job_id)
        assert job.not_before is not None
        job.not_before -= timedelta(hours=1)
        job.created_at -= timedelta(hours=hours)
    for url, away in services.jobs.servers._away.items():
        services.jobs.servers._away[url] = replace(away, until=0.0)


def test_what_came_out_is_recorded(services: Services, handler: Behave) -> None:
    handler(lambda work: f"a {work.job.kind} of {work.project.uid}")
    services.jobs.ask(1, "train", "test")
    job = run(services)
    assert (job.state, job.outcome, job.error) == ("done", "a train of 12.1700000000", None)


AWAY = [
    *(LabelStudioError("Away.", status) for status in (None, 500, 502, 503, 429)),
    # A token that was revoked may be given back, a project may be shown again.
    *(LabelStudioError("Refused.", status) for status in (401, 403, 404)),
    ImagesAwayError({7: ImageError("The host example.com cannot be reached.", passes=True)}, 9),
    OSError(errno.ENOSPC, "No space left on device"),
    OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full")),
    OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked")),
    torch.OutOfMemoryError("CUDA out of memory."),
]


@pytest.mark.parametrize("error", AWAY, ids=repr)
def test_what_passes_is_waited_for_longer_and_longer_and_never_given_up(
    services: Services, handler: Behave, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def fail(work: Context) -> str:
        tried.append(work.job.id)
        raise error

    handler(fail)
    began = job_of(services, services.jobs.ask(1, "train", "test")).created_at
    for module in (manager, run_module):  # the clock stands still
        monkeypatch.setattr(module, "now", lambda: began)
    reason = fault_of(error).reason
    waits = []
    for attempt in range(10):
        job = run(services)
        assert (job.state, job.error, job.attempts) == ("pending", reason, 0)
        assert job.not_before is not None
        waits.append((job.not_before - began).total_seconds())
        run(services)  # before its time
        assert len(tried) == attempt + 1
        # What passes at once is not reported; what lasts is.
        assert problem_of(services) == (None if attempt == 0 else reason)
        let_time_pass(services, hours=1 / 60)
    assert waits[:2] == pytest.approx([5, 60])
    assert waits[-1] == 300
    handler(lambda _: "well")
    assert run(services).state == "done"
    assert problem_of(services) is None


def test_a_refusal_that_may_pass_is_tried_again_but_not_for_ever(
    services: Services, handler: Behave
) -> None:
    """An import answers 400 if one of its tasks was deleted meanwhile."""
    handler(raises(LabelStudioError("Refused.", 400)))
    services.jobs.ask(1, "queue", "test")
    for attempt in range(1, MAX_ATTEMPTS):
        job = run(services)
        assert (job.state, job.error, job.attempts) == ("pending", "Refused.", attempt)
        let_time_pass(services)
    job = run(services)
    assert (job.state, job.attempts) == ("failed", MAX_ATTEMPTS)


def test_the_end_of_a_job_is_recorded_once_the_disk_has_room_again(
    services: Services, handler: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its lane would stay taken until the worker restarts."""
    finish = services.jobs.finish
    full = [OperationalError("UPDATE", {}, sqlite3.OperationalError("disk is full"))] * 3

    def finish_on_a_full_disk(*arguments: Any, **named: Any) -> None:
        if full:
            raise full.pop()
        finish(*arguments, **named)

    monkeypatch.setattr(services.jobs, "finish", finish_on_a_full_disk)
    monkeypatch.setattr(run_module, "RECORD_AGAIN_S", 0.01)
    handler(lambda _: "well")
    services.jobs.ask(1, "train", "test")
    assert run(services).state == "done"


def test_a_worker_that_stops_on_a_full_disk_leaves_the_job_to_the_next(
    services: Services, handler: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OperationalError("UPDATE", {}, sqlite3.OperationalError("disk is full"))

    handler(lambda _: "well")
    services.jobs.ask(1, "train", "test")
    monkeypatch.setattr(services.jobs, "finish", full)
    run_job(services, 1, lambda: True)
    assert job_of(services, 1).state == "running"
    assert services.jobs.recover() == ["train (job 1)"]


def test_one_that_passes_leaves_no_trace_of_failure(services: Services, handler: Behave) -> None:
    handler(raises(LabelStudioError("Label Studio is away.", 503)))
    services.jobs.ask(1, "sync", "test")
    run(services)
    let_time_pass(services)
    handler(lambda _: "well")
    job = run(services)
    assert (job.state, job.outcome, job.error) == ("done", "well", None)
    with services.store.reading() as session:
        project = session.get_one(Project, 1)
        assert (project.problem, project.problem_advice) == (None, None)


@pytest.mark.parametrize(
    "error",
    [
        LabelStudioError("Label Studio refused to import: 413", 413),
        ModelError("The weights are of another network."),
        LabelingError("The labeling config has no <Image>."),
    ],
)
def test_other_faults_fail_at_once_with_their_reason(
    services: Services, handler: Behave, error: Exception
) -> None:
    handler(raises(error))
    services.jobs.ask(1, "train", "test")
    job = run(services)
    assert (job.state, job.error, job.attempts) == ("failed", str(error), 1)
    with services.store.reading() as session:
        project = session.get_one(Project, 1)
        assert project.problem == str(error)
        assert project.problem_advice == fault_of(error).advice
        assert session.scalars(select(Event.text)).all() == [f"train failed: {error}"]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ModelError("Too large."), "closed"),  # it stands in nobody's way
        (LabelStudioError("Label Studio is away."), "scoring"),  # it is waited for
    ],
)
def test_a_round_that_cannot_be_made(
    services: Services, handler: Behave, error: Exception, state: str
) -> None:
    with services.store.reading() as session:
        project = session.get_one(Project, 1)
    add_round(services, project, [1], number=1)
    add_round(services, project, [1], number=2, state="scoring")
    handler(raises(error))
    services.jobs.ask(1, "score", "test")
    assert run(services).state == ("failed" if state == "closed" else "pending")
    with services.store.reading() as session:
        assert session.scalars(select(Round.state).order_by(Round.number)).all() == ["open", state]


def test_a_problem_is_none_once_a_job_of_its_kind_has_been_done(
    services: Services, handler: Behave
) -> None:
    handler(raises(ModelError("Too large.")))
    services.jobs.ask(1, "train", "test")
    run(services)
    handler(lambda _: "well")
    services.jobs.ask(1, "sync", "test")
    run(services, 2)
    assert problem_of(services) == "Too large."
    services.jobs.ask(1, "train", "test")
    run(services, 3)
    assert problem_of(services) is None


def test_the_same_fault_is_noted_once(services: Services, handler: Behave) -> None:
    handler(raises(ModelError("Too large.")))
    for number in (1, 2, 3):
        services.jobs.ask(1, "train", "test")
        run(services, number)
    with services.store.reading() as session:
        assert len(session.scalars(select(Event)).all()) == 1


def test_an_unexpected_error_is_a_sentence_in_the_record_and_a_traceback_in_the_log(
    services: Services, handler: Behave, caplog: pytest.LogCaptureFixture
) -> None:
    handler(raises(ZeroDivisionError("the inner detail")))
    services.jobs.ask(1, "score", "test")
    job = run(services)
    assert (job.state, job.error) == (
        "failed",
        "Internal error, see the log: ZeroDivisionError",
    )
    assert "the inner detail" in caplog.text
    # The worker goes on: the next job runs.
    handler(lambda _: "well")
    services.jobs.ask(1, "score", "test")
    assert run(services, 2).state == "done"


def test_a_job_that_is_stopped_waits_for_the_next_worker(
    services: Services, handler: Behave
) -> None:
    handler(raises(Stopped()))
    services.jobs.ask(1, "train", "test")
    services.jobs.huey.flush()
    run_job(services, 1, lambda: True)
    job = job_of(services, 1)
    assert (job.state, job.error) == ("pending", None)
    assert len(services.jobs.huey) == 0  # this worker is ending


def test_a_problem_disappears_once_the_job_succeeds_also_if_a_restart_came_between(
    services: Services, handler: Behave
) -> None:
    services.jobs.ask(1, "sync", "test")
    handler(raises(LabelStudioError("Away.")))
    for _ in range(2):
        run(services)
        let_time_pass(services)
    assert problem_of(services) == "Away."

    def stop(_: Context) -> str:
        raise Stopped

    handler(stop)
    run_job(services, 1, lambda: True)
    handler(lambda _: "well")
    assert run(services).state == "done"
    assert problem_of(services) is None


def test_a_job_asks_whether_it_is_to_stop(services: Services, handler: Behave) -> None:
    def work_long(work: Context) -> str:
        while True:
            work.report(0.5, "working")

    handler(work_long)
    services.jobs.ask(1, "train", "test")
    answers = chain([False, False], repeat(True))
    run_job(services, 1, lambda: next(answers))
    assert job_of(services, 1).state == "pending"


def test_jobs_that_waited_for_the_lane_are_sent(services: Services, handler: Behave) -> None:
    def ask_for_more(_: Context) -> str:
        services.jobs.ask(1, "train", "test")
        services.jobs.huey.flush()  # the message came while the lane was busy
        return "well"

    handler(ask_for_more)
    services.jobs.ask(1, "train", "test")
    run(services)
    assert jobs_of(services) == [("train", "done"), ("train", "pending")]
    assert len(services.jobs.huey) == 1


def test_a_job_that_somebody_has_is_left_alone(services: Services, handler: Behave) -> None:
    handler(raises(AssertionError("ran")))
    services.jobs.ask(1, "train", "test")
    services.jobs.claim(1)
    assert run(services).state == "running"


def test_settings_that_can_no_longer_be_used_are_reported(
    services: Services, handler: Behave
) -> None:
    with services.store.transaction() as session:
        session.get_one(Project, 1).extra_params = {"bugdet": 1}
    services.jobs.ask(1, "train", "test")
    job = run(services)
    assert job.state == "failed"
    assert job.error == 'There is no setting "bugdet"; did you mean "budget"?'
