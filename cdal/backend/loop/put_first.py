"""What somebody put at the front of the queue stays there when the order is made anew."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.loop.rounds import queued_round
from cdal.backend.store.queries import waiting
from cdal.backend.store.tables import Pick, Project, Task

Ranking = dict[int, tuple[float, dict[str, object]]]
"""The score and the reason of each task, in the order in which they come."""


def put_first(session: Session, project_id: int, ranking: Ranking) -> Ranking:
    """A ranking in which those come first that somebody put first in the order that is served.

    They stay there until they are labelled, whether the new ranking has them or not.
    """
    project = session.get_one(Project, project_id)
    # It may have been given up while its queue was to be written again, but it is still served.
    served = queued_round(session, project)
    if served is None:
        return ranking
    chosen_by = Pick.reason["chosen_by"].as_string()
    chosen = session.execute(
        select(Pick.task_id, chosen_by)
        .where(
            Pick.round_id == served.id,
            chosen_by.is_not(None),
            Pick.task_id.in_(select(Task.task_id).where(waiting(project_id))),
        )
        .order_by(Pick.rank)
    )
    first: Ranking = {}
    for task_id, who in chosen:
        score, reason = ranking.get(task_id, (0.0, {}))
        first[task_id] = score, {**reason, "chosen_by": who}
    return first | {task_id: it for task_id, it in ranking.items() if task_id not in first}
