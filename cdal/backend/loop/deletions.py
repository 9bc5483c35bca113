"""Finding what changed without a newer time of change on any task: deletions, changes in bulk.

The numbers of tasks, and of labelled ones, are compared with Label Studio's. Where they differ, the
range of ids is halved until it is small, so that one deletion among a million tasks takes a few
counts and one page of ids. No task's data is read for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import func, select

from cdal.backend.jobs.gathering import POLL
from cdal.backend.label_studio.client import ALL_IDS, PAGE
from cdal.backend.loop.context import Context
from cdal.backend.loop.saved_tasks import Labels, save_tasks
from cdal.backend.store.queries import count_labelled, count_tasks, forget_tasks
from cdal.backend.store.tables import Task

Range = tuple[int, int]
"""The first and the last id of some tasks."""


def catch_up(work: Context) -> int:
    """Find deleted tasks and labels, and tasks that were missed; returns how many were read."""
    tasks, labelled = work.client.count(), work.client.count(labelled=True)
    remembered = work.services.remembered(work.project)
    with work.services.store.reading() as session:
        known_labelled = count_labelled(session, work.project.id)
        # To count a million tasks takes longer than all the rest of a sync. If as many were deleted
        # as were imported, the minute's poll finds it.
        known_tasks = remembered.tasks
        if tasks != known_tasks or work.job.asked_by == POLL:
            known_tasks = count_tasks(session, work.project.id)
    read = 0
    if tasks == known_tasks:
        remembered.tasks = tasks
    else:
        for among in list(_differing(work, ALL_IDS, labelled=False)):
            read += _compare_ids(work, among)
    # More labels than were just read: most likely somebody submitted one in between, and its own
    # webhook is on the way. The minute's poll makes sure.
    if labelled < known_labelled or (work.job.asked_by == POLL and labelled > known_labelled):
        for among in list(_differing(work, ALL_IDS, labelled=True)):
            read += _read_again(work, among)
    return read


def _differing(work: Context, among: Range, labelled: bool) -> Iterator[Range]:
    """Small ranges of ids in which the numbers of tasks, or of labelled ones, differ."""
    work.check_stop()
    first, last = among
    known = (Task.project_id == work.project.id) & Task.task_id.between(first, last)
    with work.services.store.reading() as session:
        count = session.scalar(select(func.count()).where(known)) or 0
        ours = count
        if labelled:
            ours = session.scalar(select(func.count()).where(known, Task.annotations > 0)) or 0
        middle = session.scalars(
            select(Task.task_id).where(known).order_by(Task.task_id).offset(count // 2).limit(1)
        ).first()
    if work.client.count(labelled, among) == ours:
        return
    if count <= PAGE or middle is None:
        yield among
        return
    yield from _differing(work, (first, middle - 1), labelled)
    yield from _differing(work, (middle, last), labelled)


def _compare_ids(work: Context, among: Range) -> int:
    """Forget the tasks of a range that were deleted, and read those that were missed."""
    existing = work.client.task_ids(among)
    with work.services.store.transaction() as session:
        query = select(Task.task_id).where(
            Task.project_id == work.project.id, Task.task_id.between(*among)
        )
        known = set(session.scalars(query))
        forget_tasks(session, work.project.id, sorted(known - existing))
    missed = existing - known
    return _read_again(work, (min(missed), max(missed))) if missed else 0


def _read_again(work: Context, among: Range) -> int:
    """Read all tasks of a range; returns how many there are."""
    first, last = among
    tasks = list(work.client.tasks(after=first - 1, until=last))
    save_tasks(work, tasks, Labels())
    return len(tasks)
