"""What a project is at, as data: for the API, the metrics and whoever watches."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.tables import Job, ModelVersion, Pick, Project, Round
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
        "problem": project.problem,
        "versions": [_version(version) for version in versions],
        "rounds": [_round(r, numbers) for r in rounds],
        "jobs": [_job(job) for job in jobs],
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


def _job(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "asked_by": job.asked_by,
        "progress": job.progress,
        "message": job.message,
        "outcome": job.outcome,
        "error": job.error,
    }
