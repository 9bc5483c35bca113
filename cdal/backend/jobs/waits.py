"""Until when a job waits, and which of those that may run has waited longest."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func

from cdal.backend.store.tables import Job, now

LONGEST_WAIT_S = 300.0
"""A job that waits for something else, such as Label Studio, is tried at least this often."""

_MOST_WAIT_S = 2 * LONGEST_WAIT_S
"""A job that is to wait longer was put off with a clock that was ahead."""


def must_wait_s(job: Job) -> float:
    """Seconds until a waiting job may run; 0 if it may now."""
    if job.not_before is None:
        return 0.0
    wait = (job.not_before - now()).total_seconds()
    return wait if 0 < wait <= _MOST_WAIT_S else 0.0


def may_run_now() -> ColumnElement[bool]:
    """The condition on jobs that says the same."""
    at = now()
    ahead = at + timedelta(seconds=_MOST_WAIT_S)
    return Job.not_before.is_(None) | (Job.not_before <= at) | (Job.not_before > ahead)


def in_turn() -> tuple[ColumnElement[datetime], ColumnElement[int]]:
    """The order in which jobs get their turns: by how long they could have run."""
    return func.coalesce(Job.not_before, Job.created_at), Job.id.expression
