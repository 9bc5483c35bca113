"""Rank: order the open round's pool by other selectors, for whoever wants to compare."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from sqlalchemy import func, select

from cdal.backend.tables import Pick, Ranking, Round
from cdal.backend.work.context import Context
from cdal.backend.work.select import Candidates, candidates_of
from cdal.selectors import PoolError, make_selector


def run(work: Context) -> str:
    """Make the rankings of the open round that were asked for and are not made yet."""
    with work.services.store.reading() as session:
        current = work.newest_round(session, "open")
        if current is None:
            return "no round is open"
        wanted = session.scalars(
            select(Ranking.selector)
            .where(Ranking.round_id == current.id)
            .where(Ranking.task_ids.is_(None), Ranking.problem.is_(None))
            .order_by(Ranking.selector)
        ).all()
        ranked = session.scalar(select(func.count()).where(Pick.round_id == current.id)) or 0
        picked = set(session.scalars(select(Pick.task_id).where(Pick.round_id == current.id)))
        candidates = _as_it_was(candidates_of(work, session, current), picked)
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
    started = time.monotonic()
    options = work.settings.selector_options if name == work.settings.selector else {}
    task_ids: list[int] | None = None
    problem = None

    def progress(_share: float) -> None:
        work.check_stop()

    try:
        budget = min(most, current.budget) if name == "cdal-rl" else most
        selection = make_selector(name, options).select(
            candidates.pool, budget, current.seed, progress
        )
        task_ids = [candidates.task_ids[pick.index] for pick in selection.picks]
    except PoolError as error:
        problem = str(error)
    with work.services.store.transaction() as session:
        row = session.get(Ranking, (current.id, name))
        if row is not None:  # else a newer round has come
            row.task_ids, row.problem = task_ids, problem
            row.seconds = time.monotonic() - started
