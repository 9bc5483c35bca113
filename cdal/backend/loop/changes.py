"""Changes in Label Studio since it was last read: tasks, labels and the project itself."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

from cdal.backend.jobs.gathering import LABELLED
from cdal.backend.label_studio.client import PAGE
from cdal.backend.label_studio.data import TaskInfo, stamp
from cdal.backend.loop.context import Context
from cdal.backend.loop.deletions import catch_up
from cdal.backend.loop.label_stream import watch_queue
from cdal.backend.loop.saved_tasks import read_labels, save_tasks
from cdal.backend.loop.serving import adopt
from cdal.backend.project_config import ProjectConfig
from cdal.backend.store.tables import Project

OVERLAP = timedelta(seconds=10)
"""Changes of the last seconds are read again, since they arrive out of order.

Label Studio takes the time of a change before its database lets it write, so a change with a later
time may become visible first. If the two clocks differ by more, the minute's poll finds it.
"""


SLICE_S = 10.0
"""For so long a sync reads a project that is read for the first time before it lets others run."""

FRESH_S = 30.0
"""A step of a refresh does not read again what a step before it read so many seconds ago."""


def ensure_read(work: Context) -> None:
    """Bring the store up to date with Label Studio, unless a job did so a moment ago.

    Reading takes several requests, and the steps of a refreshed order are seconds apart. It is left
    out only if Label Studio has sent no event since. A label whose event is still on its way comes
    as one that was submitted a moment later: it counts for the next training, and Label Studio
    serves no labelled task, whatever its place in the order.
    """
    if is_reading_all(work):  # a job reads it, and what is known so far will do
        return
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
    config = ProjectConfig.parse(info.labeling_config, work.project.extra_params)
    with work.services.store.transaction() as session:
        project = session.get_one(Project, work.project.id)
        project.title = info.title
        project.labeling_config = info.labeling_config
        project.skip_queue = info.skip_queue
        adopt(session, project.id, config.controls)
        if config.control.image_key != work.control.image_key:
            project.changes_seen = None  # the images are now in another field of the tasks
            project.read_up_to = None
        if work.job.kind == "sync":  # a training may read this while a queue is being written
            watch_queue(work, session, project, info)
        since = first_to_read(project.changes_seen)
    work.controls, work.control = config.controls, config.control
    read = _read_all(work) if since is None else _read_since(work, since)
    if work.job.asked_by not in LABELLED and not is_reading_all(work):
        read += catch_up(work)
    work.services.remembered(work.project).changes_read = begun
    return read


def _read_since(work: Context, since: str) -> int:
    """Read the tasks that changed since then; returns how many."""
    latest = stamp(datetime.now(UTC))
    newest, read = "", 0
    for page in _pages(work, work.client.tasks(since)):
        save_tasks(work, page, read_labels(work, page, since))
        newest = max(newest, *(task.updated_at for task in page))
        read += len(page)
    if newest:
        # Only once all are written: what a kill prevents from being written must be read again.
        with work.services.store.transaction() as session:
            project = session.get_one(Project, work.project.id)
            project.changes_seen = max(project.changes_seen or "", min(newest, latest))
    return read


def _read_all(work: Context) -> int:
    """Read all tasks, going on where an earlier job stopped; returns how many.

    Each page is saved with the place it ends at, so a kill loses one page. A sync stops after
    `SLICE_S`, and another goes on: a queue can be written in between. What changes meanwhile on
    pages that are read already is read afterwards, from the newest change before the beginning on.
    """
    with work.services.store.reading() as session:
        after = session.get_one(Project, work.project.id).read_up_to
    if after is None:
        newest = work.client.newest_change()
        with work.services.store.transaction() as session:
            project = session.get_one(Project, work.project.id)
            after = project.read_up_to = 0
            project.read_since = newest and min(newest, stamp(datetime.now(UTC)))
    deadline = time.monotonic() + (SLICE_S if work.job.kind == "sync" else float("inf"))
    read = 0
    for page in _pages(work, work.client.tasks(after=after)):
        save_tasks(work, page, read_labels(work, page, None))
        read += len(page)
        with work.services.store.transaction() as session:
            session.get_one(Project, work.project.id).read_up_to = page[-1].task_id
        work.report(0.0, f"{read:,} tasks read")
        if len(page) == PAGE and time.monotonic() >= deadline:  # a shorter one is the last
            return read
    with work.services.store.transaction() as session:
        project = session.get_one(Project, work.project.id)
        project.changes_seen, project.read_up_to = project.read_since, None
    return read


def is_reading_all(work: Context) -> bool:
    """Whether a reading of all tasks has begun and is not finished."""
    with work.services.store.reading() as session:
        return session.get_one(Project, work.project.id).read_up_to is not None


def first_to_read(seen: str | None) -> str | None:
    """From which time on changes must be read; None for all of them."""
    at = datetime.now(UTC)
    # A time that is ahead was recorded with a clock that was, so what came since is not known.
    if seen is None or seen > stamp(at):
        return None
    return min(seen, stamp(at - OVERLAP))


def _pages(work: Context, tasks: Iterable[TaskInfo]) -> Iterator[list[TaskInfo]]:
    """The tasks, a page at a time, until the job is to stop."""
    every = iter(tasks)
    while page := list(islice(every, PAGE)):
        work.check_stop()
        yield page
