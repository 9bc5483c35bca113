"""When a lane has room for a job, and when a job that takes long makes room for another.

A project's scoring or selection has its lane to itself for a minute. After that, those of other
projects run beside it, a few at a time. Once these take long, too, a scoring stops where it is
until its next turn. A selection cannot go on where it stopped; but only a policy takes long to
train, and beside those that train one there is always a place for others.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from cdal.backend.jobs.kinds import KINDS, SHARED_LANES, Lane
from cdal.backend.jobs.waits import may_run_now
from cdal.backend.store.tables import Job, Round, seconds_since

SHARE_S = 60.0
"""For so long a project's scoring or selection has the lane to itself. If it takes longer, the
minute's poll sends those of other projects."""

THREADS_FOR_ONE = 9
"""Threads with which one project is scored at a time; each of two more allows another."""

POLICY = "cdal-rl"
"""The selector that trains a policy. That takes seconds of the processor for 100,000 images, but
much longer with the published settings, whose policy reads the whole pool in each epoch."""


def scored_at_once(threads: int) -> int:
    """How many projects a worker with these threads scores or selects for at the same time."""
    return 1 + min(2, max(0, threads - THREADS_FOR_ONE))


def kinds_of(lane: Lane) -> list[str]:
    """The kinds of job that belong to a lane."""
    return [kind for kind, known in KINDS.items() if known.lane == lane]


def projects_in(lane: Lane) -> Select[int]:
    """The ids of the projects with a running job of a lane."""
    return select(Job.project_id).where(Job.state == "running", Job.kind.in_(kinds_of(lane)))


def is_busy(session: Session, job: Job, worker: int | None, at_once: int) -> bool:
    """Whether a job's lane has no room for it.

    Args:
        session: of the store.
        job: a waiting job.
        worker: who would run it.
        at_once: how many projects that worker scores at the same time.
    """
    lane = KINDS[job.kind].lane
    own = projects_in(lane).where(Job.project_id == job.project_id)
    if session.scalars(own).first() is not None:
        return True
    if lane not in SHARED_LANES:
        return False
    running = session.scalars(_running(lane, worker)).all()
    if lane != "score":
        return bool(running)
    if len(running) >= at_once or not all(map(_had_its_share, running)):
        return True
    return _policies_take_all_but_one(session, running, at_once) and _trains_policy(session, job)


def must_give_way(session: Session, job: Job, at_once: int) -> bool:
    """Whether a running scoring has had its share and another project waits for its place.

    Of several, the one that began first gives way.
    """
    running = session.scalars(_running("score", job.worker_id)).all()
    first = next((one.id for one in running if one.kind == "score"), None)
    if len(running) < at_once or first != job.id or not all(map(_had_its_share, running)):
        return False
    waiting = session.scalars(
        select(Job).where(
            Job.state == "pending",
            Job.kind.in_(kinds_of("score")),
            Job.project_id.not_in([one.project_id for one in running]),
            may_run_now(),
        )
    ).all()
    if _policies_take_all_but_one(session, running, at_once):
        return not all(_trains_policy(session, one) for one in waiting)
    return bool(waiting)


def _running(lane: Lane, worker: int | None) -> Select[Job]:
    """The jobs of a lane that a worker runs; those that began first come first."""
    here = Job.worker_id.is_not_distinct_from(worker)
    query = select(Job).where(Job.state == "running", Job.kind.in_(kinds_of(lane)), here)
    return query.order_by(Job.started_at, Job.id)


def _had_its_share(job: Job) -> bool:
    return job.started_at is None or seconds_since(job.started_at) >= SHARE_S


def _policies_take_all_but_one(session: Session, running: Sequence[Job], at_once: int) -> bool:
    """Whether another policy would leave no place in the lane; there may always be one."""
    training = sum(_trains_policy(session, one) for one in running)
    return training >= max(1, at_once - 1)


def _trains_policy(session: Session, job: Job) -> bool:
    if job.kind != "select":
        return False
    newest = select(Round.selector).filter_by(project_id=job.project_id, state="selecting")
    return session.scalars(newest.order_by(Round.id.desc())).first() == POLICY
