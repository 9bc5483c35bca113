"""Jobs: what the worker does, did and will do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.jobs.kinds import JobKind
from cdal.backend.reports.view import Limited, Time, View
from cdal.backend.store.tables import Job, now

JobState = Literal["pending", "running", "done", "failed", "cancelled"]

LEAST_PROGRESS = 0.02
"""Below this share of a job, its pace does not yet tell how long the rest takes."""


class JobView(View):
    """One job."""

    id: int
    project: int
    kind: JobKind
    state: JobState
    asked_by: str
    cancelled_by: str | None
    progress: float = Field(description="Share that is done, from 0 to 1.")
    seconds_left: float | None = Field(
        description="Estimated from the pace of a running job; null while it is unknown."
    )
    message: str = Field(description="What it is doing.")
    outcome: str | None = Field(description="What it achieved.")
    error: str | None
    attempts: int
    created_at: Time
    started_at: Time | None
    finished_at: Time | None


class JobsView(View):
    jobs: list[JobView] = Field(description="The newest first.")


class JobsQuery(Limited):
    state: JobState | None = Field(None, description="In this state only.")
    kind: JobKind | None = Field(None, description="Of this kind only.")


def seconds_left(job: Job) -> float | None:
    """How long a running job may still take at its pace so far; None while that is unknown."""
    if job.state != "running" or job.started_at is None or job.progress < LEAST_PROGRESS:
        return None
    elapsed = (now() - job.started_at).total_seconds()
    return round(max(elapsed, 0.0) * (1 - job.progress) / job.progress, 1)


def job_view(job: Job) -> JobView:
    """One job, with its progress and the time left."""
    return JobView(
        id=job.id,
        project=job.project_id,
        kind=job.kind,
        state=job.state,
        asked_by=job.asked_by,
        cancelled_by=job.cancelled_by,
        progress=job.progress,
        seconds_left=seconds_left(job),
        message=job.message,
        outcome=job.outcome,
        error=job.error,
        attempts=job.attempts,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def jobs_view(
    session: Session,
    project: int | None = None,
    state: str | None = None,
    kind: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> JobsView:
    """Jobs, the newest first; see `JobsQuery` for the filters."""
    query = select(Job).order_by(Job.id.desc()).limit(limit)
    wanted = {"project_id": project, "state": state, "kind": kind}
    query = query.filter_by(**{name: value for name, value in wanted.items() if value is not None})
    if before is not None:
        query = query.where(Job.id < before)
    return JobsView(jobs=[job_view(job) for job in session.scalars(query)])
