"""The pool's map: each image a point, near to those that look alike to the model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cdal.backend.config import ServerConfig
from cdal.backend.predictions import IDS_A_QUERY, chunks
from cdal.backend.state import open_round_of
from cdal.backend.tables import ModelVersion, Pick, Project, Round, Task


@dataclass(frozen=True, slots=True)
class PoolMap:
    """Of one model version, N images; lists of the same length.

    Attributes:
        version: the model version's number.
        images: how many there are; the map has a sample of them where they are many.
        task_ids: of the points.
        x: in [0, 1].
        y: in [0, 1].
        classes: index of each image's most probable class.
        entropies: in bits, the mean over the image's regions.
    """

    version: int
    images: int
    task_ids: list[int]
    x: list[float]
    y: list[float]
    classes: list[int]
    entropies: list[float]

    def save(self, file: Path) -> None:
        """Write the file: all of it or, after a kill, nothing."""
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(asdict(self)))
        unfinished.rename(file)

    @classmethod
    def load(cls, file: Path) -> PoolMap | None:
        """What was saved; None where nothing was."""
        try:
            return cls(**json.loads(file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None


def newest_map(session: Session, config: ServerConfig, project: Project) -> PoolMap | None:
    """The map by the open round's model; None where it has none, or none that is drawn."""
    current = open_round_of(session, project)
    if current is None or current.model_version_id is None:
        return None
    version = session.get_one(ModelVersion, current.model_version_id)
    return PoolMap.load(map_file(config.project_folder(project.id), version.number))


def map_file(project_folder: Path, version: int) -> Path:
    """Where a model version's map lies."""
    return project_folder / "maps" / f"{version}.json"


def pool_status(session: Session, project: Project, drawn: PoolMap) -> dict[str, Any]:
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
    """«labelled», «skipped», «queued» or «unlabelled», by task; none of those that are gone."""
    current = open_round_of(session, project)
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
