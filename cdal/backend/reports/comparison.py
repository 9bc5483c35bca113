"""The comparison: what other selectors would pick from a round's pool, without queueing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from cdal.backend.config import ServerConfig
from cdal.backend.loop.comparison import SELECTORS, made
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.loop.rounds import open_round
from cdal.backend.reports.view import View
from cdal.backend.settings import SelectorName
from cdal.backend.store.tables import Comparison, ModelVersion, Project
from cdal.selectors import DiversityEmbedding


class SelectorView(View):
    """What one selector would pick."""

    name: str
    ready: bool
    problem: str | None
    picks: list[int] = Field(description="Tasks by rank.")
    classes: int | None = Field(description="Classes that the model sees in them.")
    entropy: float | None = Field(description="In bits, the mean over the images.")
    diversity: float | None = Field(
        description="Contextual diversity in nats, the mean over the pairs of images."
    )


class ComparisonView(View):
    """What two selectors would pick in the open round."""

    round: int
    budget: int
    selectors: list[SelectorView]
    common: int | None = Field(description="Images that both pick; null until both have ranked.")


class ComparisonQuery(BaseModel):
    """Which selectors to compare."""

    model_config = ConfigDict(extra="forbid")

    a: SelectorName = Field("cdal-cs", description="One selector.")
    b: SelectorName = Field("entropy", description="Another.")


def ranks_of(
    comparisons: Mapping[str, Comparison], task_ids: Sequence[int]
) -> dict[int, dict[str, int | None]]:
    """Each task's rank, from 1, by each selector that has ranked; None: beyond its last."""
    places = {
        name: {task: rank for rank, task in enumerate(row.task_ids, start=1)}
        for name, row in comparisons.items()
        if row.task_ids is not None
    }
    return {
        task: {name: places[name].get(task) for name in SELECTORS if name in places}
        for task in task_ids
    }


def comparison_view(
    session: Session, config: ServerConfig, project: Project, names: Sequence[str]
) -> ComparisonView | None:
    """What these selectors would pick in the open round, side by side.

    Returns:
        None where no round is open, or no model has scored its pool.
    """
    current = open_round(session, project)
    if current is None or current.model_version_id is None:
        return None
    version = session.get_one(ModelVersion, current.model_version_id)
    folder = config.scores_folder(project.id, version.number)
    comparisons = made(session, current)
    picks = {
        name: list(row.task_ids[: current.budget])
        for name in names
        if (row := comparisons.get(name)) is not None and row.task_ids is not None
    }
    wanted = {task for tasks in picks.values() for task in tasks}
    scores = Scores.of_tasks(folder, wanted) if wanted else None
    common = None
    if len(picks) == len(names):
        common = len(set.intersection(*(set(tasks) for tasks in picks.values())))
    return ComparisonView(
        round=current.number,
        budget=current.budget,
        selectors=[
            _selector(name, comparisons.get(name), picks.get(name), scores) for name in names
        ],
        common=common,
    )


def _selector(
    name: str, ranking: Comparison | None, picks: list[int] | None, scores: Scores | None
) -> SelectorView:
    classes, entropy, diversity = _measures(scores, picks or [])
    return SelectorView(
        name=name,
        ready=picks is not None,
        problem=ranking.problem if ranking is not None else None,
        picks=picks or [],
        classes=classes,
        entropy=entropy,
        diversity=diversity,
    )


def _measures(
    scores: Scores | None, picks: Sequence[int]
) -> tuple[int, float, float] | tuple[None, None, None]:
    """Classes in a selection, its mean entropy in bits, and its mean CD in nats."""
    if scores is None:
        return None, None, None
    row_of = {task: row for row, task in enumerate(scores.task_ids.tolist())}
    rows = [row_of[task] for task in picks if task in row_of]
    if not rows:
        return None, None, None
    picked = scores.rows(torch.tensor(rows))
    classes = int((picked.region_counts > 0).any(0).sum())
    entropy = float(picked.uncertainties[:, 0].mean())
    embedding = DiversityEmbedding.of(picked.mixtures, picked.present)
    pairs = len(rows) * (len(rows) - 1)
    aggregate = embedding.aggregate(torch.arange(len(rows)))
    return classes, entropy, aggregate / pairs if pairs else 0.0
