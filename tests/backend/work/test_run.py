"""Running jobs: what is tried again, what fails, what is recorded.

The handlers are fakes: each does one thing that a real one might do.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from offline import add_project, add_round, job_of, jobs_of, make_services
from sqlalchemy import select

from cdal.backend.client import LabelStudioError
from cdal.backend.jobs import MAX_ATTEMPTS
from cdal.backend.labeling import LabelingError
from cdal.backend.services import Services
from cdal.backend.tables import Event, Job, Project, Round
from cdal.backend.work import run as run_module
from cdal.backend.work.context import Context
from cdal.backend.work.run import HANDLERS, run_job
from cdal.models import ModelError, Stopped

Behave = Callable[[Callable[[Context], str]], None]


@pytest.fixture
def services(tmp_path: Path) -> Services:
    made = make_services(tmp_path)
    add_project(made)
    return made


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Behave:
    """Lets every kind of job do something that the test says."""

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


def let_time_pass(services: Services, job_id: int = 1) -> None:
    with services.store.transaction() as session:
        job = session.get_one(Job, job_id)
        assert job.not_before is not None
        job.not_before -= timedelta(hours=1)


def test_what_came_out_is_recorded(services: Services, handler: Behave) -> None:
    handler(lambda work: f"a {work.job.kind} of {work.project.uid}")
    services.jobs.ask(1, "train", "test")
    job = run(services)
    assert (job.state, job.outcome, job.error) == ("done", "a train of 12.1700000000", None)


@pytest.mark.parametrize("status", [None, 500, 502, 503, 429, 400])
def test_an_error_of_label_studio_that_may_pass_is_tried_again(
    services: Services, handler: Behave, status: int | None
) -> None:
    handler(raises(LabelStudioError("Label Studio is away.", status)))
    services.jobs.ask(1, "queue", "test")
    for attempt in range(1, MAX_ATTEMPTS):
        job = run(services)
        assert (job.state, job.error, job.attempts) == ("pending", "Label Studio is away.", attempt)
        assert run(services).attempts == attempt  # not before its time
        let_time_pass(services)
    job = run(services)
    assert (job.state, job.attempts) == ("failed", MAX_ATTEMPTS)
    assert run(services).attempts == MAX_ATTEMPTS


def test_one_that_passes_leaves_no_trace_of_failure(services: Services, handler: Behave) -> None:
    handler(raises(LabelStudioError("Label Studio is away.", 503)))
    services.jobs.ask(1, "sync", "test")
    run(services)
    let_time_pass(services)
    handler(lambda _: "well")
    job = run(services)
    assert (job.state, job.outcome, job.error) == ("done", "well", None)
    with services.store.reading() as session:
        assert session.get_one(Project, 1).problem is None


@pytest.mark.parametrize(
    "error",
    [
        LabelStudioError("Label Studio refused to read the project: 401", 401),
        LabelStudioError("Label Studio refused to read the project: 404", 404),
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
        assert session.get_one(Project, 1).problem == str(error)
        assert session.scalars(select(Event.text)).all() == [f"train failed: {error}"]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ModelError("Too large."), "closed"),  # it stands in nobody's way
        (LabelStudioError("Label Studio is away."), "scoring"),  # a later sync goes on with it
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
    for _ in range(MAX_ATTEMPTS):
        if run(services).state == "pending":
            let_time_pass(services)
    assert job_of(services, 1).state == "failed"
    with services.store.reading() as session:
        assert session.scalars(select(Round.state).order_by(Round.number)).all() == ["open", state]


def test_a_problem_is_none_once_a_job_of_its_kind_has_been_done(
    services: Services, handler: Behave
) -> None:
    def problem() -> str | None:
        with services.store.reading() as session:
            return session.get_one(Project, 1).problem

    handler(raises(ModelError("Too large.")))
    services.jobs.ask(1, "train", "test")
    run(services)
    handler(lambda _: "well")
    services.jobs.ask(1, "sync", "test")
    run(services, 2)
    assert problem() == "Too large."
    services.jobs.ask(1, "train", "test")
    run(services, 3)
    assert problem() is None


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
    job = run(services)
    assert (job.state, job.error) == ("pending", None)
    assert len(services.jobs.huey) == 0  # this worker is ending


def test_a_job_asks_whether_it_is_to_stop(services: Services, handler: Behave) -> None:
    def work_long(work: Context) -> str:
        while True:
            work.report(0.5, "working")

    handler(work_long)
    services.jobs.ask(1, "train", "test")
    answers = iter([False, False, True])
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


def test_settings_that_can_no_longer_be_used_are_told(services: Services, handler: Behave) -> None:
    with services.store.transaction() as session:
        session.get_one(Project, 1).extra_params = {"bugdet": 1}
    services.jobs.ask(1, "train", "test")
    job = run(services)
    assert job.state == "failed"
    assert job.error == "There is no setting «bugdet»; did you mean «budget»?"
