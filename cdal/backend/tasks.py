"""What is known of a project's tasks: how many, which may be asked for, which are gone."""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from cdal.backend.predictions import IDS_A_QUERY, chunks
from cdal.backend.tables import Task


def count_tasks(session: Session, project_id: int) -> int:
    return session.scalar(select(func.count()).where(Task.project_id == project_id)) or 0


def waiting(project_id: int) -> ColumnElement[bool]:
    """The condition on tasks that a round may ask for them: neither labelled, skipped nor bad."""
    return (
        (Task.project_id == project_id)
        & (Task.annotations == 0)
        & (Task.skips == 0)
        & Task.image_problem.is_(None)
    )


def count_labelled(session: Session, project_id: int) -> int:
    """Images with a submitted annotation."""
    query = select(func.count()).where(Task.project_id == project_id, Task.annotations > 0)
    return session.scalar(query) or 0


def count_unusable(session: Session, project_id: int) -> int:
    """Images that could not be fetched or decoded."""
    query = select(func.count()).where(
        Task.project_id == project_id, Task.image_problem.is_not(None)
    )
    return session.scalar(query) or 0


def forget_all_but(session: Session, project_id: int, existing: set[int]) -> None:
    """Forget the tasks that Label Studio no longer has."""
    known = session.scalars(select(Task.task_id).filter_by(project_id=project_id))
    gone = [task_id for task_id in known if task_id not in existing]
    for ids in chunks(gone, IDS_A_QUERY):
        session.execute(delete(Task).where(Task.project_id == project_id, Task.task_id.in_(ids)))
