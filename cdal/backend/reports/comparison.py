"""Rankings: how other selectors would have ordered a round's pool, without queueing anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from cdal.backend.config import ServerConfig
from cdal.backend.loop.comparison import SELECTORS, made
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.loop.rounds import open_round
from cdal.backend.reports.view import View
from cdal.backend.settings import SelectorName
from cdal.backend.store.tables import ModelVersion, Project, Ranking
from cdal.selectors import DiversityEmbedding


def ranks_of(
    rankings: dict[str, Ranking], task_ids: Sequence[int]
) -> dict[int, dict[str, int | None]]:
    """Each task's rank from 1 under each selector that has ranked; None: beyond its last."""
    places = {
        name: {task: rank for rank, task in enumerate(row.task_ids, start=1)}
        for name, row in rankings.items()
        if row.task_ids is not None
    }
    return {
        task: {name: places[name].get(task) for name in SELECTORS if name in places}
        for task in task_ids
    }


def comparison_status(
    session: Session, config: ServerConfig, project: Project, names: Sequence[str]
) -> dict[str, Any] | None:
    """What some selectors would have asked for in the open round, side by side, as JSON data.

    Returns:
        None where no round is open, or it is a random one.
    """
    current = open_round(session, project)
    if current is None or current.model_version_id is None:
        return None
    version = session.get_one(ModelVersion, current.model_version_id)
    folder = config.scores_folder(project.id, version.number)
    rankings = made(session, current)
    picks = {
        name: list(row.task_ids[: current.budget])
        for name in names
        if (row := rankings.get(name)) is not None and row.task_ids is not None
    }
    wanted = {task for tasks in picks.values() for task in tasks}
    scores = Scores.of_tasks(folder, wanted) if wanted else None
    rows = {t: i for i, t in enumerate(scores.task_ids.tolist())} if scores is not None else {}
    return {
        "round": current.number,
        "budget": current.budget,
        "selectors": [
            {
                "name": name,
                "ready": name in picks,
                "problem": rankings[name].problem if name in rankings else None,
                "picks": picks.get(name, []),
                **_measures(scores, [rows[t] for t in picks.get(name, []) if t in rows]),
            }
            for name in names
        ],
        "common": len(set.intersection(*(set(tasks) for tasks in picks.values())))
        if len(picks) == len(names)
        else None,
    }


def _measures(scores: Scores | None, rows: list[int]) -> dict[str, float | int | None]:
    """What can be said of a selection: classes in it, mean entropy in bits, mean CD in nats."""
    if scores is None or not rows:
        return {"classes": None, "entropy": None, "diversity": None}
    some = scores.rows(torch.tensor(rows))
    pairs = len(rows) * (len(rows) - 1)
    embedding = DiversityEmbedding.of(some.mixtures, some.present)
    aggregate = embedding.aggregate(torch.arange(len(rows)))
    classes = int(((some.region_counts > 0).any(0)).sum())
    return {
        "classes": classes,
        "entropy": float(some.uncertainties[:, 0].mean()),
        "diversity": aggregate / pairs if pairs else 0.0,
    }


class SelectorView(View):
    """What a selector would ask for."""

    name: str
    ready: bool
    problem: str | None
    picks: list[int] = Field(description="Tasks by rank.")
    classes: int | None = Field(description="That the model sees in them.")
    entropy: float | None = Field(description="Bits, the mean over the images.")
    diversity: float | None = Field(description="Nats, the mean over the pairs of images.")


class ComparisonView(View):
    """What two selectors would ask for in the open round."""

    round: int
    budget: int
    selectors: list[SelectorView]
    common: int | None = Field(description="Images that both ask for.")


class ComparisonQuery(BaseModel):
    """Which selectors to compare."""

    model_config = ConfigDict(extra="forbid")

    a: SelectorName = Field("cdal-cs", description="One selector.")
    b: SelectorName = Field("entropy", description="Another.")
