"""Queries that several parts need: a project's tasks by kind, projects and jobs by number."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, TypeGuard, TypeVar

from sqlalchemy import ColumnElement, delete, exists, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from cdal.backend.errors import ActionError
from cdal.backend.store.tables import IGNORE_SKIPPED, Job, ModelVersion, Project, Task


def count_tasks(session: Session, project_id: int) -> int:
    return session.scalar(select(func.count()).where(Task.project_id == project_id)) or 0


def rows_of(
    session: Session,
    project_id: int,
    task_ids: Collection[int],
    *columns: InstrumentedAttribute[Any],
) -> Iterator[tuple[Any, ...]]:
    """These columns of some tasks, by id; the others of the project, maybe a million, are not read.

    A task that is not known has no row.
    """
    for ids in chunks(sorted(task_ids), IDS_PER_QUERY):
        some = (Task.project_id == project_id) & Task.task_id.in_(ids)
        yield from session.execute(select(*columns).where(some).order_by(Task.task_id))


def waiting(project_id: int) -> ColumnElement[bool]:
    """The condition on tasks that a round may pick them: not labelled, ended or unusable."""
    return (
        (Task.project_id == project_id)
        & (Task.annotations == 0)
        & still_served(project_id)
        & Task.image_problem.is_(None)
    )


def still_served(project_id: int) -> ColumnElement[bool]:
    """The condition on tasks without a label that Label Studio still serves them to somebody.

    A skip is that person's: others, or the same person later, are served the task. Only a project
    that ignores skipped tasks ends them.
    """
    ends = select(Project.id).where(Project.id == project_id, Project.skip_queue == IGNORE_SKIPPED)
    return (Task.skips == 0) | ~ends.exists()


def any_row(session: Session, condition: ColumnElement[bool]) -> bool:
    """Whether a row meets a condition; counting those of a million tasks would take seconds."""
    return bool(session.scalar(select(exists().where(condition))))


def count_labelled(session: Session, project_id: int) -> int:
    """Images with a submitted annotation."""
    query = select(func.count()).where(Task.project_id == project_id, Task.annotations > 0)
    return session.scalar(query) or 0


def serving_versions(session: Session, project_id: int) -> list[ModelVersion]:
    """The model versions that serve, one per control."""
    query = select(ModelVersion).filter_by(project_id=project_id, serves=True)
    return list(session.scalars(query.order_by(ModelVersion.number)))


def of_control(name: str) -> ColumnElement[bool]:
    """The condition on model versions that they are for this control.

    Those of earlier releases count for every control: they do not say which they are for.
    """
    return ModelVersion.control.in_(("", name))


def changed_labels(project_id: int) -> ColumnElement[bool]:
    """The condition on tasks that a training has learnt their label, which was changed or deleted
    since.
    """
    is_changed = (Task.annotations == 0) | (Task.labelled_as != Task.learnt_as)
    return (Task.project_id == project_id) & Task.learnt_as.is_not(None) & is_changed


def forget_changes(session: Session, project_id: int) -> None:
    """Count labels as learnt as they are now, since a training begins or was requested."""
    session.execute(
        update(Task).where(changed_labels(project_id)).values(learnt_as=Task.labelled_as)
    )


def count_unusable(session: Session, project_id: int) -> int:
    """Images that could not be fetched or decoded."""
    query = select(func.count()).where(
        Task.project_id == project_id, Task.image_problem.is_not(None)
    )
    return session.scalar(query) or 0


def forget_all_but(session: Session, project_id: int, existing: set[int]) -> None:
    """Forget the tasks that Label Studio no longer has."""
    known = session.scalars(select(Task.task_id).filter_by(project_id=project_id))
    forget_tasks(session, project_id, [task_id for task_id in known if task_id not in existing])


def forget_tasks(session: Session, project_id: int, task_ids: Sequence[int]) -> None:
    """Forget tasks that were deleted."""
    for ids in chunks(task_ids, IDS_PER_QUERY):
        session.execute(delete(Task).where(Task.project_id == project_id, Task.task_id.in_(ids)))


IDS_PER_QUERY = 500
"""Databases limit the parameters per query."""

T = TypeVar("T")


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in order, at most `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def find_project(session: Session, project_id: int) -> Project:
    """A project by its number in the store.

    Raises:
        ActionError: it does not exist.
    """
    project = session.get(Project, project_id)
    if project is None:
        raise ActionError(f"There is no project {project_id}.", 404)
    return project


def find_job(session: Session, job_id: int) -> Job:
    """A job by its number.

    Raises:
        ActionError: it does not exist.
    """
    job = session.get(Job, job_id)
    if job is None:
        raise ActionError(f"There is no job {job_id}.", 404)
    return job


def find(session: Session, url: str, uid: str) -> Project | None:
    """A project by the address of its Label Studio and by "ID.createdAt" there."""
    return session.scalars(select(Project).filter_by(url=url, uid=uid)).one_or_none()


def namesakes(session: Session, uid: str) -> list[Project]:
    """The projects of all servers with an "ID.createdAt", in the order they were connected."""
    return list(session.scalars(select(Project).filter_by(uid=uid).order_by(Project.id)))


def is_id(value: object) -> TypeGuard[int]:
    """Whether a value from outside is an integer that the database can look up."""
    # In Python true is a number, but PostgreSQL does not compare it with one.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
