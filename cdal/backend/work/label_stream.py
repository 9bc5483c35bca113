"""The label stream: whether it follows the queue that was written for it."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.store import note
from cdal.backend.tables import Project, Round
from cdal.backend.work.context import Context
from cdal.backend.work.queue import QUEUE_VERSION_PREFIX


def watch_queue(work: Context, session: Session, project: Project, model_version: str) -> None:
    """Say so when somebody took the label stream off our queue.

    One of our own queues that the store does not know is of a time after the backup that it was
    restored from: then the open round's queue is written anew.
    """
    if work.newest_round(session, "queueing") is not None:
        return  # it is about to be set
    ours = project.queue_version
    if ours is None or model_version == ours:
        if project.problem and project.problem.startswith("The project's model version"):
            project.problem = None
        return
    if model_version.startswith(QUEUE_VERSION_PREFIX) and _is_unknown(session, model_version):
        current = work.newest_round(session, "open")
        if current is not None:
            current.state = "queueing"
            work.request(session, "queue", "a label stream that is ahead of the store")
            note(
                session,
                project.id,
                f"The label stream follows «{model_version}», which this data folder, perhaps "
                "restored from a backup, does not know; the queue is written anew.",
                "warning",
            )
            return
    problem = (
        f"The project's model version in Label Studio is «{model_version}», not the queue's "
        f"«{ours}», so the label stream does not follow the queue; the next round sets it again."
    )
    if project.problem != problem:
        project.problem = problem
        note(session, project.id, problem, "warning")


def _is_unknown(session: Session, queue_version: str) -> bool:
    query = select(Round.id).filter_by(queue_version=queue_version)
    return session.scalars(query).first() is None
