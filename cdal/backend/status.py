"""What a project is at, as JSON data: for the API, the command line and whoever watches.

`cdal.backend.schema` describes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.state import labels_in, open_round_of, seconds_left, state_of
from cdal.backend.tables import Event, Job, ModelVersion, Pick, Project, Round, Task
from cdal.backend.tasks import count_labelled, count_tasks


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
        "state": state_of(session, project).to_dict(),
        "progress": _progress(session, project),
        "metric": _metric(versions, project.serving_version_id),
        "versions": [_version(version) for version in versions],
        "rounds": [_round(r, numbers) for r in rounds],
        "jobs": [job_status(job) for job in jobs],
    }


def queue_status(
    session: Session, project: Project, first: int = 0, most: int | None = None
) -> dict[str, Any]:
    """The round that the label stream follows, and its images by rank, as JSON data.

    Args:
        session: to read with.
        project: whose queue.
        first: how many ranks to leave out.
        most: how many images to tell of; None: all.
    """
    current = open_round_of(session, project)
    if current is None:
        return {"round": None, "selector": None, "picks": []}
    query = (
        select(Pick, Task.annotations, Task.skips)
        .outerjoin(Task, (Task.task_id == Pick.task_id) & (Task.project_id == project.id))
        .where(Pick.round_id == current.id)
        .order_by(Pick.rank)
        .offset(first)
        .limit(most)
    )
    return {
        "round": current.number,
        "selector": current.selector,
        "picks": [
            {
                "rank": pick.rank,
                "task": pick.task_id,
                "state": pick.state,
                "score": pick.score,
                "reason": pick.reason,
                "labelled": bool(labels),
                "skipped": not labels and bool(skips),
            }
            for pick, labels, skips in session.execute(query)
        ],
    }


def _progress(session: Session, project: Project) -> dict[str, int] | None:
    """How far people are with the open round."""
    current = open_round_of(session, project)
    if current is None:
        return None
    return {
        "round": current.number,
        "labels": labels_in(session, current),
        "budget": current.budget,
    }


def _metric(versions: Sequence[ModelVersion], serving: int | None) -> dict[str, Any] | None:
    """The serving version's metric, and what the version before it had on the same images."""
    version = next((v for v in versions if v.id == serving), None)
    if version is None or not version.metrics:
        return None
    name = version.metrics["main_name"]
    before = (version.serving_metrics or {}).get("values", {}).get(name)
    value = version.metrics["values"][name]
    return {
        "name": name,
        "value": value,
        "images": version.metrics.get("images"),
        "before": before,
        "moved": None if before is None else value - before,
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


def _time(time: datetime | None) -> str | None:
    return None if time is None else f"{time.isoformat(timespec='milliseconds')}Z"
