"""The pool's map: each image a point, near to those that look alike to the model."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cdal.backend.loop.pool_map import PoolMap
from cdal.backend.loop.rounds import open_round
from cdal.backend.reports.view import View
from cdal.backend.store.queries import IDS_A_QUERY, chunks
from cdal.backend.store.tables import ModelVersion, Pick, Project, Round, Task


def pool_map_status(session: Session, project: Project, drawn: PoolMap) -> dict[str, Any]:
    """The map with what has become of each image, as JSON data."""
    version = session.scalars(
        select(ModelVersion).filter_by(project_id=project.id, number=drawn.version)
    ).one()
    tasks = _states(session, project, drawn.task_ids)
    rounds = _rounds(session, project, drawn.task_ids)
    points = [
        {
            "task": task,
            "x": drawn.x[row],
            "y": drawn.y[row],
            "class": drawn.classes[row],
            "entropy": drawn.entropies[row],
            "state": tasks[task],
            "round": rounds.get(task) if tasks[task] != "unlabelled" else None,
        }
        for row, task in enumerate(drawn.task_ids)
        if task in tasks
    ]
    return {
        "version": drawn.version,
        "images": drawn.images,
        "classes": list(version.classes),
        "counts": Counter(point["state"] for point in points),
        "points": points,
    }


def _states(session: Session, project: Project, task_ids: list[int]) -> dict[int, str]:
    """By task: "labelled", "skipped", "queued" or "unlabelled"; tasks that are gone have none."""
    current = open_round(session, project)
    picks: dict[int, str] = {}
    if current is not None:
        query = select(Pick.task_id, Pick.state).filter_by(round_id=current.id)
        picks = {task: state for task, state in session.execute(query)}  # noqa: C416 — rows are no pairs
    states: dict[int, str] = {}
    for ids in chunks(task_ids, IDS_A_QUERY):
        rows = session.execute(
            select(Task.task_id, Task.annotations, Task.skips).where(
                Task.project_id == project.id, Task.task_id.in_(ids)
            )
        )
        for task, labels, skips in rows:
            if labels:
                states[task] = "labelled"
            elif skips:
                states[task] = "skipped"
            else:
                queued = picks.get(task) in ("queued", "sending")
                states[task] = "queued" if queued else "unlabelled"
    return states


def _rounds(session: Session, project: Project, task_ids: list[int]) -> dict[int, int]:
    """The last round that queued each task."""
    found: dict[int, int] = {}
    for ids in chunks(task_ids, IDS_A_QUERY):
        rows = session.execute(
            select(Pick.task_id, func.max(Round.number))
            .join(Round, Round.id == Pick.round_id)
            .where(Round.project_id == project.id, Pick.state == "queued", Pick.task_id.in_(ids))
            .group_by(Pick.task_id)
        )
        found.update((task, number) for task, number in rows)
    return found


class PointView(View):
    """An image on the pool's map."""

    task: int
    x: float
    y: float
    class_: int = Field(alias="class", description="Index of its most probable class.")
    entropy: float
    state: Literal["labelled", "queued", "skipped", "unlabelled"]
    round: int | None = Field(description="That queued it last.")


class PoolMapView(View):
    """The pool's map."""

    version: int
    images: int
    classes: list[str]
    counts: dict[str, int]
    points: list[PointView]
