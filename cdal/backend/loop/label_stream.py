"""Whether Label Studio's label stream follows the queue that it was told to follow."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.label_studio.client import UNCERTAINTY_SAMPLING
from cdal.backend.label_studio.data import ProjectInfo
from cdal.backend.loop.context import Context
from cdal.backend.loop.rounds import open_round, round_of_queue
from cdal.backend.store.events import note
from cdal.backend.store.tables import Project, Round

SET_AGAIN = ", so the label stream does not follow the queue; the next round sets it again."
RESCORE = 'press "Rescore", or wait for the next round.'


def watch_queue(work: Context, session: Session, project: Project, info: ProjectInfo) -> None:
    """Report a problem if somebody took the label stream off our queue.

    If it follows one of our own queues that the store does not know, the store was restored from
    an older backup: then the open round's queue is written again.
    """
    if work.newest_round(session, "queueing") is not None:
        return  # it is about to be set
    ours = project.queue_version
    problem = None if ours is None else _problem(ours, info)
    if problem is None:
        if project.problem and project.problem.endswith(SET_AGAIN):
            project.clear_problem()
        return
    version = info.model_version
    other_queue = version != ours and round_of_queue(version) is not None
    if other_queue and _is_unknown(session, version):
        current = open_round(session, work.project)
        if current is not None:
            current.state = "queueing"
            work.request(session, "queue", "a label stream that is ahead of the store")
            note(
                session,
                project.id,
                f'The label stream follows "{version}", which this data folder, perhaps '
                "restored from a backup, does not know; the queue is written again.",
                "warning",
            )
            return
    if project.set_problem(problem, RESCORE):
        note(session, project.id, problem, "warning")


def _problem(ours: str, info: ProjectInfo) -> str | None:
    """Why the label stream does not follow the queue; None if it does."""
    if info.model_version != ours:
        is_set = (
            f'model version in Label Studio is "{info.model_version}", not the queue\'s "{ours}"'
        )
    elif info.sampling != UNCERTAINTY_SAMPLING:
        is_set = f'task sampling in Label Studio is "{info.sampling}", not "{UNCERTAINTY_SAMPLING}"'
    else:
        return None
    return f"The project's {is_set}{SET_AGAIN}"


def _is_unknown(session: Session, queue_version: str) -> bool:
    query = select(Round.id).filter_by(queue_version=queue_version)
    return session.scalars(query).first() is None
