"""Jobs, as the API gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.jobs.kinds import JobKind
from cdal.backend.reports.view import Limited, View, _time
from cdal.backend.store.tables import Job, now

JobState = Literal["pending", "running", "done", "failed", "cancelled"]


class JobView(View):
    """A piece of work and its record."""

    id: int
    project: int
    kind: JobKind
    state: JobState
    asked_by: str
    cancelled_by: str | None
    progress: float = Field(description="Share that is done, from 0 to 1.")
    seconds_left: float | None = Field(
        description="Of a job that runs, by its pace so far; null where that is not known yet."
    )
    message: str = Field(description="What it does now.")
    outcome: str | None = Field(description="What came of it.")
    error: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobsView(View):
    jobs: list[JobView] = Field(description="The newest first.")


class JobsQuery(Limited):
    state: JobState | None = Field(None, description="In this state only.")
    kind: JobKind | None = Field(None, description="Of this kind only.")


LEAST_PROGRESS = 0.02
"""Before this share of a job is done, its pace says nothing of the time that is left."""


def seconds_left(job: Job) -> float | None:
    """How long a job that runs may still take, by its pace so far; None where nobody can say."""
    if job.state != "running" or job.started_at is None or job.progress < LEAST_PROGRESS:
        return None
    elapsed = (now() - job.started_at).total_seconds()
    return round(max(elapsed, 0.0) * (1 - job.progress) / job.progress, 1)


def job_status(job: Job) -> dict[str, Any]:
    """A job, how far it is and how long it may still take, as JSON data."""
    return {
        "id": job.id,
        "project": job.project_id,
        "kind": job.kind,
        "state": job.state,
        "asked_by": job.asked_by,
        "cancelled_by": job.cancelled_by,
        "progress": job.progress,
        "seconds_left": seconds_left(job),
        "message": job.message,
        "outcome": job.outcome,
        "error": job.error,
        "attempts": job.attempts,
        "created_at": _time(job.created_at),
        "started_at": _time(job.started_at),
        "finished_at": _time(job.finished_at),
    }


def jobs_status(
    session: Session,
    project: int | None = None,
    state: str | None = None,
    kind: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Jobs, the newest first, as JSON data; only those that fit what is given."""
    query = select(Job).order_by(Job.id.desc()).limit(limit)
    wanted = {"project_id": project, "state": state, "kind": kind}
    query = query.filter_by(**{name: value for name, value in wanted.items() if value is not None})
    if before is not None:
        query = query.where(Job.id < before)
    return [job_status(job) for job in session.scalars(query)]
