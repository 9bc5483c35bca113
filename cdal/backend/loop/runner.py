"""Running a job: claim it, do it, record the outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from sqlalchemy import select

from cdal.backend.errors import DamagedScoresError
from cdal.backend.jobs.faults import Fault, fault_of
from cdal.backend.jobs.kinds import KINDS
from cdal.backend.jobs.manager import MAX_ATTEMPTS
from cdal.backend.jobs.waits import LONGEST_WAIT_S
from cdal.backend.logs import log_context
from cdal.backend.loop import (
    comparison,
    export,
    full_training,
    pool_map,
    prune,
    queue,
    recheck,
    savings,
    score,
    sync,
    train,
)
from cdal.backend.loop import select as selecting
from cdal.backend.loop.context import Context, GaveWay, Watch
from cdal.backend.loop.rounds import UNFINISHED, newest_round
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.failures import STORAGE, storage_problem
from cdal.backend.store.tables import Job, Project, now
from cdal.models import Stopped, free_memory

log = logging.getLogger(__name__)

HANDLERS: Mapping[str, Callable[[Context], str]] = {
    "sync": sync.run,
    "train": train.run,
    "score": score.run,
    "select": selecting.run,
    "queue": queue.run,
    "comparison": comparison.run,
    "pool_map": pool_map.run,
    "savings": savings.run,
    "export": export.run,
    "full_training": full_training.run,
    "recheck": recheck.run,
    "prune": prune.run,
}

FIRST_WAIT_S = 5.0
RECORD_AGAIN_S = 5.0


def run_job(services: Services, job_id: int, stop: Callable[[], bool]) -> None:
    """Run a job unless somebody has it or it must wait, and send those that waited for it."""
    try:
        job = services.jobs.claim(job_id)
    except STORAGE as error:  # it waits, and the minute's poll sends it again
        log.error("Job %d cannot begin. %s", job_id, storage_problem(error))  # noqa: TRY400
        return
    if job is None:
        return
    with log_context(project=job.project_id, round=_round_of(services, job), job=job.id):
        if _run(services, job, stop):
            services.jobs.send_next(job)


def _round_of(services: Services, job: Job) -> int | None:
    """The number of the round that the project is at."""
    try:
        with services.store.reading() as session:
            current = newest_round(session, job.project_id, "open", *UNFINISHED)
    except STORAGE:  # the job itself will report it
        return None
    return current.number if current else None


def _run(services: Services, job: Job, stop: Callable[[], bool]) -> bool:
    """Do a claimed job; return whether the worker goes on."""
    log.info("project %d: %s (job %d) begins, %s", job.project_id, job.kind, job.id, job.asked_by)
    try:
        watch = Watch(services.jobs, job.id, stop)
        outcome = _do(Context.of(services, job, watch))
    except GaveWay:
        log.info("project %d: %s (job %d) gives way", job.project_id, job.kind, job.id)
        # Not at once, or it might take its place again.
        _record(lambda: services.jobs.put_back(job.id, delay_s=FIRST_WAIT_S, counts=False), stop)
    except Stopped:
        _record(lambda: services.jobs.put_back(job.id, counts=False), stop)
        if stop():
            return False
    except Exception as error:
        fault = fault_of(error)
        if not fault.known:
            log.exception("project %d: %s (job %d) broke", job.project_id, job.kind, job.id)
        _record(lambda: _fail(services, job, fault), stop)
    else:
        if KINDS[job.kind].asks_label_studio:
            _record(lambda: services.jobs.servers.note_answer(_server_of(services, job)), stop)
        _record(lambda: _finish(services, job, outcome), stop)
        log.info("project %d: %s (job %d): %s", job.project_id, job.kind, job.id, outcome)
    finally:
        free_memory()
    return True


def _do(work: Context) -> str:
    try:
        return HANDLERS[work.job.kind](work)
    except DamagedScoresError as error:
        return score.score_again(work, error)


def _record(write: Callable[[], None], stop: Callable[[], bool]) -> None:
    """Record a job's end, however long the disk is full, or its lane would stay taken for good."""
    logged = False
    while True:
        try:
            write()
            return
        except STORAGE as error:
            if not logged:
                log.error("A job's end cannot be recorded yet. %s", storage_problem(error))  # noqa: TRY400
            logged = True
        if stop():  # the next worker resumes it
            return
        time.sleep(RECORD_AGAIN_S)


def _finish(services: Services, job: Job, outcome: str) -> None:
    _forget_problem(services, job)
    services.jobs.finish(job.id, "done", outcome=outcome)


def _server_of(services: Services, job: Job) -> str:
    with services.store.reading() as session:
        return session.get_one(Project, job.project_id).url


def _forget_problem(services: Services, job: Job) -> None:
    """A problem that kept a job of this kind from being done is none once one has been done."""
    faults = select(Job.error).filter_by(project_id=job.project_id, kind=job.kind)
    with services.store.reading() as session:
        problem = session.get_one(Project, job.project_id).problem
        if problem is None or problem not in session.scalars(faults).all():
            return
    with services.store.transaction() as session:
        session.get_one(Project, job.project_id).clear_problem()


def _fail(services: Services, job: Job, fault: Fault) -> None:
    """Try a job again later if that may help; otherwise it has failed."""
    if fault.label_studio:
        with services.store.transaction() as session:
            project = session.get_one(Project, job.project_id)
            project.label_studio_errors = (project.label_studio_errors or 0) + 1
    if fault.no_answer:
        services.jobs.servers.note_failure(_server_of(services, job), fault.reason)
    waits = fault.passes or (fault.again and job.attempts < MAX_ATTEMPTS)
    if not waits:
        services.jobs.finish(job.id, "failed", error=fault.reason)
    if not waits or job.error is not None:  # nobody needs to know what passes at once
        _tell(services, job, fault)
    if waits:
        log.warning("project %d: %s: %s; trying again", job.project_id, job.kind, fault.reason)
        # Longer and longer: the job is twice as old at each attempt.
        # A job from the future, by a clock that was ahead, is as old.
        age = abs((now() - job.created_at).total_seconds())
        delay = min(max(FIRST_WAIT_S, age), LONGEST_WAIT_S)
        services.jobs.put_back(job.id, fault.reason, delay, counts=not fault.passes)


def _tell(services: Services, job: Job, fault: Fault) -> None:
    with services.store.transaction() as session:
        project = session.get_one(Project, job.project_id)
        if project.set_problem(fault.reason, fault.advice):
            note(session, project.id, f"{job.kind} failed: {fault.reason}", "error")
