"""Changes in Label Studio since it was last read: tasks, labels and the project itself."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from cdal.backend.annotations import mark_of
from cdal.backend.errors import LabelStudioError
from cdal.backend.label_studio.client import LabelStudioClient
from cdal.backend.label_studio.data import TaskInfo, moment_of, stamp
from cdal.backend.loop import agreement
from cdal.backend.loop.connection import POLL
from cdal.backend.loop.context import Context
from cdal.backend.loop.pre_annotations import shown_tasks
from cdal.backend.loop.queue import watch_queue
from cdal.backend.project_config import ProjectConfig
from cdal.backend.store.database import Store
from cdal.backend.store.queries import count_labelled, count_tasks, forget_all_but
from cdal.backend.store.tables import (
    Annotation,
    Annotator,
    ModelVersion,
    Prediction,
    Project,
    Submission,
    Task,
)

CHUNK = 500

OVERLAP = timedelta(seconds=10)
"""Changes of the last seconds are read again, since they arrive out of order.

Label Studio takes the time of a change before its database lets it write, so a change with a later
time may become visible first. If the two clocks differ by more, the minute's poll finds it.
"""


FRESH_S = 30.0
"""A step of a refresh does not read again what a step before it read so many seconds ago."""


def ensure_read(work: Context) -> None:
    """Bring the store up to date with Label Studio, unless a job did so a moment ago.

    Reading takes several requests, and the steps of a refreshed order are seconds apart. It is left
    out only if Label Studio has sent no event since. A label whose event is still on its way comes
    as one that was submitted a moment later: it counts for the next training, and Label Studio
    serves no labelled task, whatever its place in the order.
    """
    last = work.services.remembered(work.project).changes_read
    if last is not None and time.monotonic() - last < FRESH_S:
        with work.services.store.reading() as session:
            if not work.services.jobs.is_active(session, work.project.id, "sync"):
                return
    read_changes(work)


def read_changes(work: Context) -> int:
    """Bring the store's tasks up to date with Label Studio; returns how many were read for it."""
    begun = time.monotonic()
    info = work.client.read_project()
    # Refuses a labeling config that can no longer be served.
    control = ProjectConfig.parse(info.labeling_config, work.project.extra_params).control
    with work.services.store.transaction() as session:
        project = session.get_one(Project, work.project.id)
        project.title = info.title
        project.labeling_config = info.labeling_config
        project.skip_queue = info.skip_queue
        if control.image_key != work.control.image_key:
            project.changes_seen = None  # the images are now in another field of the tasks
        if work.job.kind == "sync":  # a training may read this while a queue is being written
            watch_queue(work, session, project, info)
        since = project.changes_seen
    work.control = control
    since = first_to_read(since)
    read = list(_until_stopped(work, work.client.tasks(since)))
    _save(work, read, _read_labels(work, read, since))
    if _is_behind(work):
        everything = list(_until_stopped(work, work.client.tasks()))
        _save(work, everything, _Labels())
        with work.services.store.transaction() as session:
            forget_all_but(session, work.project.id, {task.task_id for task in everything})
        read = everything
    work.services.remembered(work.project).changes_read = begun
    return len(read)


def first_to_read(seen: str | None) -> str | None:
    """From which time on changes must be read; None for all of them."""
    at = datetime.now(UTC)
    # A time that is ahead was recorded with a clock that was, so what came since is not known.
    if seen is None or seen > stamp(at):
        return None
    return min(seen, stamp(at - OVERLAP))


def _until_stopped(work: Context, tasks: Iterable[TaskInfo]) -> Iterator[TaskInfo]:
    """The tasks, until the job is to stop: those of a large project take a while to list."""
    for task in tasks:
        work.check_stop()
        yield task


def _is_behind(work: Context) -> bool:
    """Whether anything changed without a newer time on a task: deletions, changes in bulk."""
    tasks, labelled = work.client.count(), work.client.count(labelled=True)
    with work.services.store.reading() as session:
        known_tasks = count_tasks(session, work.project.id)
        known_labelled = count_labelled(session, work.project.id)
    if tasks != known_tasks or labelled < known_labelled:
        return True
    # More labels than were just read: most likely somebody submitted one in between, and its own
    # webhook is on the way. The minute's poll makes sure.
    return work.job.asked_by == POLL and labelled > known_labelled


@dataclass(frozen=True, slots=True)
class _Labels:
    """What was submitted for the tasks that changed.

    Attributes:
        marks: what they are labelled as now, by task id.
        compared: their annotations that there is something to compare with, by task id.
    """

    marks: dict[int, str] = field(default_factory=dict)
    compared: dict[int, list[Annotation]] = field(default_factory=dict)


def _read_labels(work: Context, tasks: Iterable[TaskInfo], since: str | None) -> _Labels:
    """What the changed tasks that are labelled are labelled as now."""
    labels = _Labels()
    if not any(task.annotations for task in tasks):
        return labels
    with work.services.store.reading() as session:
        shown = shown_tasks(session, work.project.id)
    for task_id, submitted in work.client.annotations(since):
        work.check_stop()
        mark = mark_of(work.control, submitted)
        if mark is not None:
            labels.marks[task_id] = mark
        labels.compared[task_id] = agreement.compare(
            work, task_id, submitted, was_shown=task_id in shown
        )
    return labels


def _save(work: Context, tasks: Iterable[TaskInfo], labels: _Labels) -> None:
    """Write tasks as Label Studio has them; a changed image is no longer a bad one.

    Args:
        work: the job.
        tasks: as they were read.
        labels: what they are labelled as, as far as that was read.
    """
    key = work.control.image_key
    tasks = list(tasks)
    learn_names(work.services.store, work.client, work.project.id, tasks)
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
    if tasks:
        # Only once all are written: what a kill prevents from being written must be read again.
        newest = min(max(task.updated_at for task in tasks), stamp(datetime.now(UTC)))
        with work.services.store.transaction() as session:
            project = session.get_one(Project, work.project.id)
            project.changes_seen = max(project.changes_seen or "", newest) or None


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
    session: Session, project_id: int, tasks: Sequence[TaskInfo], labels: _Labels
) -> None:
    """Record how far annotations agree, of the tasks that were read or are no longer labelled."""
    ids = [t.task_id for t in tasks if t.annotations == 0 or t.task_id in labels.compared]
    rows = [row for task_id in ids for row in labels.compared.get(task_id, ())]
    agreement.record(session, project_id, ids, rows)


def learn_names(
    store: Store, client: LabelStudioClient, project_id: int, tasks: Iterable[TaskInfo]
) -> None:
    """Read people's names if somebody has labelled whose name is not known yet.

    If the token may not read them, people keep their numbers.
    """
    with store.reading() as session:
        known = set(session.scalars(select(Annotator.number).filter_by(project_id=project_id)))
    if not any(number not in known for task in tasks for number in task.annotators):
        return
    try:
        names = client.people()
    except LabelStudioError:
        return
    with store.transaction() as session:
        for number, name in names.items():
            session.merge(Annotator(project_id=project_id, number=number, name=name))
