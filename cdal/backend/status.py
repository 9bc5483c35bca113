"""What a project is at, as data: for the API, the metrics and whoever watches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.state import labels_in, open_round_of, state_of
from cdal.backend.tables import Job, ModelVersion, Pick, Project, Round, Task
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
        "paused": project.paused_at is not None,
        "state": state_of(session, project).to_dict(),
        "progress": _progress(session, project),
        "metric": _metric(versions, project.serving_version_id),
        "versions": [_version(version) for version in versions],
        "rounds": [_round(r, numbers) for r in rounds],
        "jobs": [_job(job) for job in jobs],
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
