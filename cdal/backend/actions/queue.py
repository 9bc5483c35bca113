"""Actions on the queue: put images first."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, insert, select

from cdal.backend.actions.done import Done
from cdal.backend.errors import ActionError
from cdal.backend.loop.rounds import open_round, unfinished_round
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.queries import IDS_PER_QUERY, chunks, find_project, waiting
from cdal.backend.store.tables import Pick, Task
from cdal.backend.text import requester

MOST = 500
"""Images per call."""


def queue_next(services: Services, project_id: int, task_ids: Sequence[int], by: str) -> Done:
    """Put images at the front of the open round's queue, in this order.

    Images that are labelled, skipped, gone or unusable are left out.

    Raises:
        ActionError: there is no such project, no round is open, or no image is left.
    """
    wanted = list(dict.fromkeys(task_ids))
    who = requester(by)
    if len(wanted) > MOST:
        raise ActionError(f"At most {MOST} images can be queued next at once, not {len(wanted)}.")
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        current = open_round(session, project)
        if current is None:
            raise ActionError("No round is open; try again once the next one is queued.")
        picks = session.scalars(
            select(Pick).filter_by(round_id=current.id).order_by(Pick.rank)
        ).all()
        making = unfinished_round(session, project)
        # A newer order that is being written has its images already, and would replace this one.
        is_written = making is not None and making.state == "queueing"
        if is_written or any(pick.state == "sending" for pick in picks):
            raise ActionError("The queue is just being written; try again in a moment.")
        there: set[int] = set()
        for ids in chunks(wanted, IDS_PER_QUERY):
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
                "reason": {
                    **(known[task].reason if task in known else {}),
                    "chosen_by": who,
                }
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
        note(session, project.id, f"Round {current.number}: {images} put first by {who}")
        job = services.jobs.request(session, project.id, "queue", who)
    services.jobs.send_pending(project_id)
    left_out = len(wanted) - len(first)
    more = f" {left_out} were left out: they are labelled, skipped or gone." if left_out else ""
    return Done(text=f"{images} come first once the queue is rewritten.{more}", job=job)
