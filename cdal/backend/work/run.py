"""Running a job: claim it, do it, record what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from sqlalchemy import select

from cdal.backend.client import LabelStudioError
from cdal.backend.jobs import MAX_ATTEMPTS
from cdal.backend.labeling import LabelingError
from cdal.backend.rounds import give_up_unfinished
from cdal.backend.services import Services
from cdal.backend.settings import SettingsError
from cdal.backend.store import note
from cdal.backend.tables import Job, Project
from cdal.backend.work import pool_map, queue, rank, score, sync, train, yardstick
from cdal.backend.work import select as selecting
from cdal.backend.work.context import Context
from cdal.backend.work.watch import Watch
from cdal.models import ModelError, Stopped
from cdal.selectors import PoolError

log = logging.getLogger(__name__)

HANDLERS: Mapping[str, Callable[[Context], str]] = {
    "sync": sync.run,
    "train": train.run,
    "score": score.run,
    "select": selecting.run,
    "queue": queue.run,
    "rank": rank.run,
    "map": pool_map.run,
    "yardstick": yardstick.run,
}

# Faults that a person can mend; their messages are written for people.
EXPECTED = (LabelStudioError, LabelingError, ModelError, PoolError, SettingsError)


def run_job(services: Services, job_id: int, stop: Callable[[], bool]) -> None:
    """Run a job unless somebody has it or it must wait, and send those that waited for it."""
    job = services.jobs.claim(job_id)
    if job is None:
        return
    log.info("project %d: %s (job %d) begins, %s", job.project_id, job.kind, job.id, job.asked_by)
    try:
        watch = Watch(services.jobs, job.id, stop)
        outcome = HANDLERS[job.kind](Context.of(services, job, watch))
    except Stopped:
        if services.jobs.put_back(job.id):
            return
    except EXPECTED as error:
        _fail(services, job, str(error), retry=_may_pass(error))
    except Exception as error:  # a worker outlives any job
        log.exception("project %d: %s (job %d) broke", job.project_id, job.kind, job.id)
        _fail(services, job, f"Internal error, see the log: {type(error).__name__}", retry=False)
    else:
        services.jobs.finish(job.id, "done", outcome=outcome)
        _forget_problem(services, job)
        log.info("project %d: %s (job %d): %s", job.project_id, job.kind, job.id, outcome)
    services.jobs.send_pending()


def _forget_problem(services: Services, job: Job) -> None:
    """A problem that kept a job of this kind from being done is none once one has been done."""
    failed = select(Job.error).filter_by(project_id=job.project_id, kind=job.kind, state="failed")
    with services.store.reading() as session:
        problem = session.get_one(Project, job.project_id).problem
        if problem is None or problem not in session.scalars(failed).all():
            return
    with services.store.transaction() as session:
        session.get_one(Project, job.project_id).problem = None


def _may_pass(error: Exception) -> bool:
    """Whether trying again later may help, as with a Label Studio that is restarting."""
    if not isinstance(error, LabelStudioError):
        return False
    # 400 comes from a task that was deleted meanwhile, which has been noticed.
    return error.status is None or error.status >= 500 or error.status in (400, 429)


def _fail(services: Services, job: Job, reason: str, retry: bool) -> None:
    if retry and job.attempts < MAX_ATTEMPTS:
        log.warning("project %d: %s: %s; trying again", job.project_id, job.kind, reason)
        services.jobs.put_back(job.id, error=reason, delay_s=5 * 4 ** (job.attempts - 1))
        return
    services.jobs.finish(job.id, "failed", error=reason)
    with services.store.transaction() as session:
        project = session.get_one(Project, job.project_id)
        if job.kind in ("score", "select", "queue") and not retry:
            # The open round goes on; the one that could not be made must not stand in its way.
            # Where Label Studio was away, a later sync goes on with it.
            give_up_unfinished(session, project.id)
        if project.problem != reason:
            project.problem = reason
            note(session, project.id, f"{job.kind} failed: {reason}", "error")
