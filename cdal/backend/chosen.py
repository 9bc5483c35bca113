"""Chosen images: what a person put at the front of the queue."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, insert, select

from cdal.backend.actions import ActionError, Done, find_project
from cdal.backend.predictions import IDS_A_QUERY, chunks
from cdal.backend.rounds import newest_round
from cdal.backend.services import Services
from cdal.backend.store import note
from cdal.backend.tables import Pick, Task
from cdal.backend.tasks import waiting

MOST = 500
"""Images that can be put first at once."""


def queue_next(services: Services, project_id: int, task_ids: Sequence[int], by: str) -> Done:
    """Put images at the front of the open round's queue, in this order.

    Those that are labelled, skipped, gone or cannot be used are left out.

    Raises:
        ActionError: there is no such project, no round is open, or none of the images waits.
    """
    wanted = list(dict.fromkeys(task_ids))
    if len(wanted) > MOST:
        raise ActionError(f"At most {MOST} images can be queued next at once, not {len(wanted)}.")
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        current = newest_round(session, project.id, "open")
        if current is None:
            raise ActionError("No round is open; try again when the next one is queued.")
        picks = session.scalars(
            select(Pick).filter_by(round_id=current.id).order_by(Pick.rank)
        ).all()
        if any(pick.state == "sending" for pick in picks):
            raise ActionError("The queue is being written just now; try again in a moment.")
        there: set[int] = set()
        for ids in chunks(wanted, IDS_A_QUERY):
            query = select(Task.task_id).where(waiting(project.id), Task.task_id.in_(ids))
            there.update(session.scalars(query))
        first = [task for task in wanted if task in there]
        if not first:
            raise ActionError(
                "None of these images can be queued: they are labelled, skipped or gone."
            )
        known = {pick.task_id: pick for pick in picks}
        order = [*first, *(pick.task_id for pick in picks if pick.task_id not in there)]
        rows = [
            {
                "round_id": current.id,
                "rank": rank,
                "task_id": task,
                "state": known[task].state if task in known else "ranked",
                "score": known[task].score if task in known else 0.0,
                "reason": {**(known[task].reason if task in known else {}), "chosen_by": by}
                if task in there
                else known[task].reason,
            }
            for rank, task in enumerate(order)
        ]
        session.execute(delete(Pick).where(Pick.round_id == current.id))
        session.execute(insert(Pick), rows)
        # A queue version is written once: the new order goes out under a new one.
        current.state = "queueing"
        images = "1 image" if len(first) == 1 else f"{len(first)} images"
        note(session, project.id, f"Round {current.number}: {images} put first by {by}")
        job = services.jobs.request(session, project.id, "queue", by)
    services.jobs.send_pending(project_id)
    left_out = len(wanted) - len(first)
    more = f" {left_out} are labelled, skipped or gone, and were left out." if left_out else ""
    return Done(f"{images} come first as soon as the queue is written anew.{more}", job)
