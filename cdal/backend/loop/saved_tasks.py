"""Saving tasks as Label Studio has them, with what was submitted for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import httpx
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from cdal.backend.annotations import mark_of
from cdal.backend.errors import LabelStudioError
from cdal.backend.label_studio.data import TaskInfo, moment_of
from cdal.backend.loop import agreement
from cdal.backend.loop.context import Context
from cdal.backend.loop.pre_annotations import shown_tasks
from cdal.backend.store.tables import (
    Annotation,
    Annotator,
    ModelVersion,
    Prediction,
    Submission,
    Task,
)

CHUNK = 500


@dataclass(frozen=True, slots=True)
class Labels:
    """What was submitted for the tasks that changed.

    Attributes:
        marks: what they are labelled as now, by task id.
        compared: their annotations that there is something to compare with, by task id.
    """

    marks: dict[int, str] = field(default_factory=dict)
    compared: dict[int, list[Annotation]] = field(default_factory=dict)


def read_labels(work: Context, tasks: Sequence[TaskInfo], since: str | None) -> Labels:
    """What was submitted for the labelled ones among these tasks, which are in order of their ids.

    Args:
        work: the job.
        tasks: that changed.
        since: when they did; None for tasks of any time.
    """
    labels = Labels()
    if not any(task.annotations for task in tasks):
        return labels
    among = tasks[0].task_id, tasks[-1].task_id
    with work.services.store.reading() as session:
        shown = shown_tasks(session, work.project.id)
    for task_id, submitted in work.client.annotations(since, among):
        work.check_stop()
        mark = mark_of(work.control, submitted)
        if mark is not None:
            labels.marks[task_id] = mark
        labels.compared[task_id] = agreement.compare(
            work, task_id, submitted, was_shown=task_id in shown
        )
    return labels


def save_tasks(work: Context, tasks: Sequence[TaskInfo], labels: Labels) -> None:
    """Write tasks as Label Studio has them; a changed image is no longer a bad one.

    Args:
        work: the job.
        tasks: as they were read.
        labels: what they are labelled as, as far as that was read.
    """
    key = work.control.image_key
    learn_names(work, tasks)
    for start in range(0, len(tasks), CHUNK):
        chunk = tasks[start : start + CHUNK]
        with work.services.store.transaction() as session:
            ids = [task.task_id for task in chunk]
            moved: list[int] = []
            known = {
                row.task_id: row
                for row in session.scalars(
                    select(Task).where(Task.project_id == work.project.id, Task.task_id.in_(ids))
                )
            }
            for task in chunk:
                row = known.get(task.task_id)
                image = task.data.get(key)
                if row is None:
                    row = Task(project_id=work.project.id, task_id=task.task_id, image=image)
                    session.add(row)
                elif row.image != image:
                    row.image, row.image_problem = image, None
                    moved.append(row.task_id)
                    if row.learnt_as is not None:
                        row.learnt_as = ""  # of another image
                row.annotations, row.skips = task.annotations, task.skips
                _mark(row, task, labels.marks.get(task.task_id))
            record(session, work.project.id, chunk)
            _record_compared(session, work.project.id, chunk, labels)
            _forget_findings(session, work.project.id, moved)


def _mark(row: Task, task: TaskInfo, mark: str | None) -> None:
    """Note what a task is labelled as now; what a training has learnt of it stays."""
    if task.annotations == 0:
        mark = None
    elif mark is None:  # it was not read
        return
    elif row.labelled_as is None:  # what takes a deleted label's place is new
        row.learnt_as = None
    if mark != row.labelled_as:
        row.label_changed_at = None if row.learnt_as is None else moment_of(task.updated_at)
        row.labelled_as = mark


def _forget_findings(session: Session, project_id: int, task_ids: Sequence[int]) -> None:
    """Forget the findings for tasks whose image was replaced, so that they are scored again."""
    if task_ids:
        versions = select(ModelVersion.id).filter_by(project_id=project_id)
        session.execute(
            delete(Prediction).where(
                Prediction.model_version_id.in_(versions), Prediction.task_id.in_(task_ids)
            )
        )


def record(session: Session, project_id: int, tasks: Sequence[TaskInfo]) -> None:
    """Record when these tasks were labelled; forget it for those whose labels were deleted."""
    ids = [task.task_id for task in tasks]
    session.execute(
        delete(Submission).where(Submission.project_id == project_id, Submission.task_id.in_(ids))
    )
    session.add_all(
        Submission(
            project_id=project_id,
            task_id=task.task_id,
            labelled_at=task.labelled_at,
            annotators=list(task.annotators),
            seconds=task.seconds,
        )
        for task in tasks
        if task.annotations > 0 and task.labelled_at is not None
    )


def _record_compared(
    session: Session, project_id: int, tasks: Sequence[TaskInfo], labels: Labels
) -> None:
    """Record how far annotations agree, of the tasks that were read or are no longer labelled."""
    ids = [t.task_id for t in tasks if t.annotations == 0 or t.task_id in labels.compared]
    rows = [row for task_id in ids for row in labels.compared.get(task_id, ())]
    agreement.record(session, project_id, ids, rows)


def learn_names(work: Context, tasks: Iterable[TaskInfo]) -> None:
    """Read people's names if somebody has labelled whose name is not known yet.

    If the token may not read them, or they have left, people keep their numbers.
    """
    store, project_id = work.services.store, work.project.id
    unnamed = work.services.remembered(work.project).unnamed
    with store.reading() as session:
        known = set(session.scalars(select(Annotator.number).filter_by(project_id=project_id)))
    new = {number for task in tasks for number in task.annotators} - known - unnamed
    if not new:
        return
    try:
        names = work.client.people()
    except LabelStudioError as error:
        if error.status == httpx.codes.FORBIDDEN:
            unnamed |= new
        return
    unnamed |= new - names.keys()
    with store.transaction() as session:
        for number, name in names.items():
            session.merge(Annotator(project_id=project_id, number=number, name=name))
