"""The label stream: whether it follows the queue that was written for it."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.label_studio.client import UNCERTAINTY_SAMPLING
from cdal.backend.label_studio.info import ProjectInfo
from cdal.backend.store import note
from cdal.backend.tables import Project, Round
from cdal.backend.work.context import Context
from cdal.backend.work.queue import QUEUE_VERSION_PREFIX

SET_AGAIN = ", so the label stream does not follow the queue; the next round sets it again."


def watch_queue(work: Context, session: Session, project: Project, info: ProjectInfo) -> None:
    """Say so when somebody took the label stream off our queue.

    One of our own queues that the store does not know is of a time after the backup that it was
    restored from: then the open round's queue is written anew.
    """
    if work.newest_round(session, "queueing") is not None:
        return  # it is about to be set
    ours = project.queue_version
    problem = None if ours is None else _problem(ours, info)
    if problem is None:
        if project.problem and project.problem.endswith(SET_AGAIN):
            project.problem = None
        return
    version = info.model_version
    other_queue = version != ours and version.startswith(QUEUE_VERSION_PREFIX)
    if other_queue and _is_unknown(session, version):
        current = work.newest_round(session, "open")
        if current is not None:
            current.state = "queueing"
            work.request(session, "queue", "a label stream that is ahead of the store")
            note(
                session,
                project.id,
                f"The label stream follows «{version}», which this data folder, perhaps "
                "restored from a backup, does not know; the queue is written anew.",
                "warning",
            )
            return
    if project.problem != problem:
        project.problem = problem
        note(session, project.id, problem, "warning")


def _problem(ours: str, info: ProjectInfo) -> str | None:
    """Why the label stream does not follow the queue; None where it does."""
    if info.model_version != ours:
        is_set = (
            f"model version in Label Studio is «{info.model_version}», not the queue's «{ours}»"
        )
    elif info.sampling != UNCERTAINTY_SAMPLING:
        is_set = f"task sampling in Label Studio is «{info.sampling}», not «{UNCERTAINTY_SAMPLING}»"
    else:
        return None
    return f"The project's {is_set}{SET_AGAIN}"


def _is_unknown(session: Session, queue_version: str) -> bool:
    query = select(Round.id).filter_by(queue_version=queue_version)
    return session.scalars(query).first() is None
