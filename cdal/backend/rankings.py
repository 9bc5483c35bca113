"""Rankings: how other selectors would have ordered a round's pool, without queueing anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from cdal.backend.config import ServerConfig
from cdal.backend.jobs import Jobs
from cdal.backend.scores import Scores
from cdal.backend.settings import SelectorName
from cdal.backend.state import open_round_of
from cdal.backend.tables import ModelVersion, Project, Ranking, Round
from cdal.selectors import DiversityEmbedding

SELECTORS: tuple[str, ...] = get_args(SelectorName)
QUICK = tuple(name for name in SELECTORS if name not in ("random", "cdal-rl"))
"""Those that rank a pool in seconds, so that every round may be ranked by all of them."""


def want(
    session: Session, jobs: Jobs, project: Project, current: Round, names: Sequence[str], by: str
) -> int | None:
    """Have a round's pool ranked by these selectors, unless it is; returns the job, if any.

    A round without a model cannot be ranked by anything but chance.
    """
    if current.model_version_id is None:
        return None
    known = {r.selector: r for r in session.scalars(select(Ranking).filter_by(round_id=current.id))}
    missing = [name for name in dict.fromkeys(names) if name not in known]
    session.add_all(Ranking(round_id=current.id, selector=name) for name in missing)
    unmade = [row for row in known.values() if row.task_ids is None and row.problem is None]
    if not missing and (not unmade or jobs.is_active(session, project.id, "rank")):
        return None
    return jobs.request(session, project.id, "rank", by)


def forget_older(session: Session, current: Round) -> None:
    """Forget the rankings of earlier rounds: they are of another pool."""
    older = select(Round.id).where(
        Round.project_id == current.project_id, Round.number < current.number
    )
    session.execute(delete(Ranking).where(Ranking.round_id.in_(older)))


def made(session: Session, current: Round) -> dict[str, Ranking]:
    """The rankings of a round that were asked for, by selector."""
    found = session.scalars(select(Ranking).filter_by(round_id=current.id))
    return {row.selector: row for row in found}


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
    current = open_round_of(session, project)
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
