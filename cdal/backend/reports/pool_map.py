"""The pool map: every image is a point, near those that look alike to the model."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cdal.backend.loop.pool_map import PoolMap
from cdal.backend.loop.rounds import open_round
from cdal.backend.reports.view import View
from cdal.backend.store.queries import IDS_PER_QUERY, chunks
from cdal.backend.store.tables import UNTRAINED, ModelVersion, Pick, Project, Round, Task

PointState = Literal["labelled", "queued", "skipped", "unlabelled"]


class PointView(View):
    """An image on the pool map."""

    task: int
    x: float = Field(description="From 0 to 1.")
    y: float = Field(description="From 0 to 1.")
    class_: int = Field(description="Index of its most probable class; 0 without a model.")
    entropy: float = Field(description="In bits.")
    state: PointState
    round: int | None = Field(description="The last round that queued it.")


class PoolMapView(View):
    """The pool map of one model version, or of a backbone alone."""

    version: int | None = Field(description="Null before there is a model.")
    images: int = Field(description="Images that were scored; the map shows all or a sample.")
    classes: list[str]
    counts: dict[str, int] = Field(description="Points by state.")
    points: list[PointView]


def pool_map_view(session: Session, project: Project, drawn: PoolMap) -> PoolMapView:
    """A map with the current state of each image; images that are gone are left out."""
    version = session.scalars(
        select(ModelVersion).filter_by(project_id=project.id, number=drawn.version)
    ).one_or_none()
    states = _states(session, project, drawn.task_ids)
    rounds = _rounds(session, project, drawn.task_ids)
    points = [
        PointView(
            task=task,
            x=drawn.x[row],
            y=drawn.y[row],
            class_=drawn.classes[row],
            entropy=drawn.entropies[row],
            state=states[task],
            round=rounds.get(task) if states[task] != "unlabelled" else None,
        )
        for row, task in enumerate(drawn.task_ids)
        if task in states
    ]
    return PoolMapView(
        version=None if drawn.version == UNTRAINED else drawn.version,
        images=drawn.images,
        classes=[] if version is None else list(version.classes),
        counts=Counter(point.state for point in points),
        points=points,
    )


def _states(session: Session, project: Project, task_ids: list[int]) -> dict[int, PointState]:
    """The state of each task that still exists."""
    current = open_round(session, project)
    queued: set[int] = set()
    if current is not None:
        query = select(Pick.task_id).where(
            Pick.round_id == current.id, Pick.state.in_(("queued", "sending"))
        )
        queued = set(session.scalars(query))
    states: dict[int, PointState] = {}
    for ids in chunks(task_ids, IDS_PER_QUERY):
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
                states[task] = "queued" if task in queued else "unlabelled"
    return states


def _rounds(session: Session, project: Project, task_ids: list[int]) -> dict[int, int]:
    """The last round that queued each task."""
    found: dict[int, int] = {}
    for ids in chunks(task_ids, IDS_PER_QUERY):
        rows = session.execute(
            select(Pick.task_id, func.max(Round.number))
            .join(Round, Round.id == Pick.round_id)
            .where(Round.project_id == project.id, Pick.state == "queued", Pick.task_id.in_(ids))
            .group_by(Pick.task_id)
        )
        found.update((task, number) for task, number in rows)
    return found
