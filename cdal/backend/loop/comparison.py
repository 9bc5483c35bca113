"""Comparison: order the open round's pool by other selectors, for whoever wants to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import torch
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cdal.backend.jobs.manager import Jobs
from cdal.backend.loop.context import Context
from cdal.backend.loop.opinions import with_opinions
from cdal.backend.loop.rounds import open_round
from cdal.backend.loop.select import Candidates, candidates_of
from cdal.backend.settings import SelectorName
from cdal.backend.store.tables import Comparison, Pick, Project, Round
from cdal.selectors import PoolError, is_quick, make_selector


def run(work: Context) -> str:
    """Order the open round's pool by each selector that was requested and is not done yet."""
    with work.services.store.reading() as session:
        current = open_round(session, work.project)
        if current is None:
            return "no round is open"
        wanted = session.scalars(
            select(Comparison.selector)
            .where(Comparison.round_id == current.id)
            .where(Comparison.task_ids.is_(None), Comparison.problem.is_(None))
            .order_by(Comparison.selector)
        ).all()
        ranked = session.scalar(select(func.count()).where(Pick.round_id == current.id)) or 0
        picked = set(session.scalars(select(Pick.task_id).where(Pick.round_id == current.id)))
        candidates = _as_it_was(candidates_of(work, session, current, wanted), picked)
    for done, name in enumerate(wanted):
        work.report(done / len(wanted), f"ranking by {name}")
        _rank(work, current, candidates, name, ranked)
    return f"ranked by {', '.join(wanted) or 'nobody'}"


def _as_it_was(candidates: Candidates, picked: set[int]) -> Candidates:
    """The pool when the round was selected: what has been labelled of it since was in it."""
    was_there = torch.tensor([task_id in picked for task_id in candidates.task_ids])
    labelled = candidates.pool.labelled & ~was_there
    return replace(candidates, pool=replace(candidates.pool, labelled=labelled))


def _rank(work: Context, current: Round, candidates: Candidates, name: str, most: int) -> None:
    options = work.settings.selector_options if name == work.settings.selector else {}
    task_ids: list[int] | None = None
    problem = None

    def progress(_share: float) -> None:
        work.check_stop()

    try:
        budget = min(most, current.budget) if name in ("cdal-rl", "badge") else most
        pool = with_opinions(work, current, candidates.pool, name)
        selection = make_selector(name, options).select(pool, budget, current.seed, progress)
        task_ids = [candidates.task_ids[pick.index] for pick in selection.picks]
    except PoolError as error:
        problem = str(error)
    with work.services.store.transaction() as session:
        row = session.get(Comparison, (current.id, name))
        if row is not None:  # else a newer round has come
            row.task_ids, row.problem = task_ids, problem


SELECTORS: tuple[str, ...] = get_args(SelectorName)

QUICK = tuple(name for name in SELECTORS if name != "random" and is_quick(name))
"""Those that rank a pool in seconds, so that every round may be ranked by all of them."""


def want(
    session: Session, jobs: Jobs, project: Project, current: Round, names: Sequence[str], by: str
) -> int | None:
    """Have a round's pool ranked by these selectors, unless it is; returns the job, if any.

    A round without a model cannot be ranked by anything but chance.
    """
    if current.model_version_id is None:
        return None
    known = {
        r.selector: r for r in session.scalars(select(Comparison).filter_by(round_id=current.id))
    }
    missing = [name for name in dict.fromkeys(names) if name not in known]
    session.add_all(Comparison(round_id=current.id, selector=name) for name in missing)
    unmade = [row for row in known.values() if row.task_ids is None and row.problem is None]
    if not missing and (not unmade or jobs.is_active(session, project.id, "comparison")):
        return None
    return jobs.request(session, project.id, "comparison", by)


def made(session: Session, current: Round) -> dict[str, Comparison]:
    """What was requested for a round, by selector."""
    found = session.scalars(select(Comparison).filter_by(round_id=current.id))
    return {row.selector: row for row in found}
