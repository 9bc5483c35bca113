"""The part of a large pool that a round scores: the best of before, and random ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.loop.select import draw_order
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.queries import waiting
from cdal.backend.store.tables import Pick, Round, Task


def sampled(session: Session, current: Round, settings: ProjectSettings) -> set[int] | None:
    """The tasks that a round's models look at, and all that are labelled; None for all tasks.

    Args:
        session: of the store.
        current: the round; each of its rankings draws other random images.
        settings: of the project.
    """
    count, project_id = settings.pool_sample, current.project_id
    if count is None:
        return None
    left = session.scalars(select(Task.task_id).where(waiting(project_id))).all()
    if len(left) <= count:
        return None
    # What the queue draws at random must be drawn as it would be from the whole pool.
    share = 1.0 if current.selector == "random" else settings.random_share
    drawn = draw_order(left, settings.seed)[: math.ceil(count * share)]
    ranked = session.scalars(
        select(Pick.task_id)
        .where(Pick.round_id == _last_ranking(session, project_id))
        .order_by(Pick.rank)
    ).all()
    seed = f"{settings.seed} {current.ranking}"
    labelled = select(Task.task_id).where(Task.project_id == project_id, Task.annotations > 0)
    return {*sample_of(left, ranked, drawn, count, seed), *session.scalars(labelled)}


def sample_of(
    left: Sequence[int], ranked: Sequence[int], drawn: Sequence[int], count: int, seed: str
) -> list[int]:
    """A sample of so many tasks: half of it the best, the others at random.

    Args:
        left: the tasks that can be picked.
        ranked: the ranking of before, the best first; it may hold others.
        drawn: random tasks that must be in it.
        count: how many.
        seed: of the random ones.
    """
    there = set(left)
    best = [task_id for task_id in ranked if task_id in there]
    found = dict.fromkeys([*drawn, *best[: min(count // 2, count - len(drawn))]])

    def place(task_id: int) -> bytes:
        return hashlib.sha256(f"sample {seed} {task_id}".encode()).digest()

    rest = sorted(there - found.keys(), key=place)
    return [*found, *rest[: count - len(found)]]


def _last_ranking(session: Session, project_id: int) -> int | None:
    """The id of the newest round, or order of it, that has a ranking."""
    return session.scalar(
        select(Round.id)
        .join(Pick, Pick.round_id == Round.id)
        .where(Round.project_id == project_id)
        .order_by(Round.ranking.desc())
        .limit(1)
    )
