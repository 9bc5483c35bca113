"""What a project is at, as JSON data: for the API, the command line and whoever watches.

`schema.py` describes it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.tables import Event, Job, ModelVersion, Pick, Project, Round, now
from cdal.backend.tasks import count_labelled, count_tasks

LEAST_PROGRESS = 0.02
"""Before this share of a job is done, its pace says nothing of the time that is left."""


def project_status(session: Session, project: Project) -> dict[str, Any]:
    """The whole state of one project as JSON data."""
    versions = session.scalars(
        select(ModelVersion).filter_by(project_id=project.id).order_by(ModelVersion.number)
    ).all()
    rounds = session.scalars(
        select(Round).filter_by(project_id=project.id).order_by(Round.number)
    ).all()
    jobs = session.scalars(
        select(Job).filter_by(project_id=project.id).order_by(Job.id.desc()).limit(20)
    ).all()
    numbers = {version.id: version.number for version in versions}
    return {
        "id": project.id,
        "label_studio_id": project.label_studio_id,
        "url": project.url,
        "title": project.title,
        "tasks": count_tasks(session, project.id),
        "labelled": count_labelled(session, project.id),
        "queue_version": project.queue_version,
        "serving_version": numbers.get(project.serving_version_id or -1),
        "paused_at": _time(project.paused_at),
        "problem": project.problem,
        "versions": [_version(version) for version in versions],
        "rounds": [_round(r, numbers) for r in rounds],
        "jobs": [job_status(job) for job in jobs],
    }


def queue_status(session: Session, project: Project) -> dict[str, Any]:
    """The round that the label stream follows, and its images by rank, as JSON data."""
    current = session.scalars(
        select(Round).filter_by(project_id=project.id, state="open").order_by(Round.number.desc())
    ).first()
    if current is None:
        return {"round": None, "picks": []}
    picks = session.scalars(select(Pick).filter_by(round_id=current.id).order_by(Pick.rank))
    return {
        "round": current.number,
        "picks": [
            {
                "rank": pick.rank,
                "task": pick.task_id,
                "state": pick.state,
                "score": pick.score,
                "reason": pick.reason,
            }
            for pick in picks
        ],
    }


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
        "seconds_left": _seconds_left(job),
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


def events_status(
    session: Session,
    project: int | None = None,
    level: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Events, the newest first, as JSON data; only those that fit what is given."""
    query = select(Event).order_by(Event.id.desc()).limit(limit)
    wanted = {"project_id": project, "level": level}
    query = query.filter_by(**{name: value for name, value in wanted.items() if value is not None})
    if before is not None:
        query = query.where(Event.id < before)
    return [
        {
            "id": event.id,
            "project": event.project_id,
            "level": event.level,
            "text": event.text,
            "created_at": _time(event.created_at),
        }
        for event in session.scalars(query)
    ]


def _version(version: ModelVersion) -> dict[str, Any]:
    metrics = version.metrics
    return {
        "number": version.number,
        "architecture": version.architecture,
        "labels": version.labels,
        "metric": metrics.get("main_name"),
        "value": metrics.get("values", {}).get(metrics.get("main_name")),
        "promoted": version.promoted,
        "verdict": version.verdict,
        "seconds": version.seconds,
        "created_at": _time(version.created_at),
    }


def _round(row: Round, numbers: dict[int, int]) -> dict[str, Any]:
    return {
        "number": row.number,
        "state": row.state,
        "version": numbers.get(row.model_version_id or -1),
        "selector": row.selector,
        "cold_start": row.cold_start,
        "budget": row.budget,
        "labels": row.labels,
        "queue_version": row.queue_version,
        "warnings": row.warnings,
        "seconds": row.seconds,
    }


def _seconds_left(job: Job) -> float | None:
    if job.state != "running" or job.started_at is None or job.progress < LEAST_PROGRESS:
        return None
    elapsed = (now() - job.started_at).total_seconds()
    return round(max(elapsed, 0.0) * (1 - job.progress) / job.progress, 1)


def _time(time: datetime | None) -> str | None:
    return None if time is None else f"{time.isoformat(timespec='milliseconds')}Z"
