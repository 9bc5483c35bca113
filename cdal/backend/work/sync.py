"""Sync: read what changed in Label Studio, and decide what is to be done about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from cdal.backend import submissions
from cdal.backend.label_studio.info import TaskInfo
from cdal.backend.label_studio.times import stamp
from cdal.backend.labeling import served_control
from cdal.backend.rounds import MADE_BY, UNFINISHED, has_its_budget, is_finished, open_round
from cdal.backend.tables import (
    Job,
    ModelVersion,
    Prediction,
    Project,
    Round,
    Submission,
    Task,
    now,
)
from cdal.backend.tasks import count_labelled, count_tasks, forget_all_but, waiting
from cdal.backend.work import prune, recheck
from cdal.backend.work.connected import POLL, is_connected
from cdal.backend.work.context import Context
from cdal.backend.work.label_stream import watch_queue
from cdal.backend.work.queue import top_up

CHUNK = 500
OVERLAP = timedelta(seconds=10)
"""Changes of the last seconds are read again, since they come out of order.

Label Studio takes the time of a change before its database lets it write, so one that is later by
that time may be seen first. Where the two clocks differ by more, the minute's poll finds it.
"""
RESUME_AFTER = timedelta(minutes=5)
"""A round whose job failed is tried again: Label Studio may have been away for long."""
FEW = 0.05
"""Of all labels. Where images come one by one into an exhausted pool, so many make a training."""
PAUSE = timedelta(minutes=2)
"""After so long without a label, fewer do."""


def run(work: Context) -> str:
    """Read the changes; request a training, a round or a top-up where one is due."""
    read = read_changes(work)
    if not is_connected(work):
        return "Label Studio lists no ML backend for the project"
    with work.services.store.transaction() as session:
        decision = _decide(work, session)
        if work.job.asked_by == POLL:
            recheck.request_if_due(work, session)
            prune.request_if_due(work, session)
    decisions = [text for text in (decision, top_up(work)) if text is not None]
    return f"{read} tasks read; {', '.join(decisions) or 'nothing to do'}"


def read_changes(work: Context) -> int:
    """Bring the store's tasks up to date with Label Studio; returns how many were read for it."""
    info = work.client.read_project()
    # Refuses a config that can no longer be served.
    control = served_control(info.labeling_config, work.settings.control)
    with work.services.store.transaction() as session:
        project = session.get_one(Project, work.project.id)
        project.title = info.title
        project.labeling_config = info.labeling_config
        if control.image_key != work.control.image_key:
            project.changes_seen = None  # every task has its image elsewhere now
        if work.job.kind == "sync":  # a training may read this while a queue is being written
            watch_queue(work, session, project, info)
        since = project.changes_seen
    work.control = control
    if since is not None:
        since = min(since, stamp(datetime.now(UTC) - OVERLAP))
    read = list(_until_stopped(work, work.client.tasks(since)))
    _save(work, read)
    if _is_behind(work):
        everything = list(_until_stopped(work, work.client.tasks()))
        _save(work, everything)
        with work.services.store.transaction() as session:
            forget_all_but(session, work.project.id, {task.task_id for task in everything})
        read = everything
    return len(read)


def _until_stopped(work: Context, tasks: Iterable[TaskInfo]) -> Iterator[TaskInfo]:
    """A big project's tasks take a while to list."""
    for task in tasks:
        work.check_stop()
        yield task


def _is_behind(work: Context) -> bool:
    """Whether something changed that leaves no newer time on a task: deletions, changes in bulk."""
    tasks, labelled = work.client.count(), work.client.count(labelled=True)
    with work.services.store.reading() as session:
        known_tasks = count_tasks(session, work.project.id)
        known_labelled = count_labelled(session, work.project.id)
    if tasks != known_tasks or labelled < known_labelled:
        return True
    # More labels than were read just before: most likely somebody submitted one in between, and
    # its own webhook is on the way. The minute's poll makes sure.
    return work.job.asked_by == POLL and labelled > known_labelled


def _save(work: Context, tasks: Iterable[TaskInfo]) -> None:
    """Write tasks as Label Studio has them; an image that changed is no longer a bad one."""
    key = work.control.image_key
    tasks = list(tasks)
    submissions.learn_names(work.services.store, work.client, work.project.id, tasks)
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
                row.annotations, row.skips = task.annotations, task.skips
            submissions.record(session, work.project.id, chunk)
            _forget_findings(session, work.project.id, moved)
    if tasks:
        # Not before all are written: what a kill kept from being written must be read again.
        newest = max(task.updated_at for task in tasks)
        with work.services.store.transaction() as session:
            project = session.get_one(Project, work.project.id)
            project.changes_seen = max(project.changes_seen or "", newest) or None


def _forget_findings(session: Session, project_id: int, task_ids: Sequence[int]) -> None:
    """Forget what models said of tasks whose image is another one now; it is scored anew."""
    if task_ids:
        versions = select(ModelVersion.id).filter_by(project_id=project_id)
        session.execute(
            delete(Prediction).where(
                Prediction.model_version_id.in_(versions), Prediction.task_id.in_(task_ids)
            )
        )


def _decide(work: Context, session: Session) -> str | None:
    """Request the job that is due; None where the open round goes on."""
    current = work.newest_round(session, "open")
    labelled = count_labelled(session, work.project.id)
    project = session.get_one(Project, work.project.id)
    _count_no_deleted(project, current, labelled)
    if project.paused_at is not None:
        return "the project is paused"
    unfinished = work.newest_round(session, *UNFINISHED)
    if unfinished is not None:
        return _resume(work, session, unfinished)
    if current is None:
        return _start(work, session, labelled)
    if work.services.jobs.is_active(session, work.project.id, "train"):
        return None
    if current.training_asked is not None:
        # A training that failed is not asked for again until more has been labelled.
        since = current.training_asked
        enough = labelled >= since + current.budget
    else:
        since = current.labels
        enough = has_its_budget(session, current, labelled) or (
            is_finished(session, current, labelled)
            and not _more_may_follow(work, session, labelled)
        )
    every = work.settings.train_every
    if not enough and (every is None or labelled < since + every):
        return None
    if labelled < work.settings.min_labels and not enough:
        return None
    current.training_asked = labelled
    work.request(session, "train", f"{labelled - since} new labels in round {current.number}")
    return f"{labelled - since} new labels, a training is due"


def _more_may_follow(work: Context, session: Session, labelled: int) -> bool:
    """Whether few labels are new and the last one just came: each would make a training."""
    new = labelled - session.get_one(Project, work.project.id).training_labels
    if new >= min(work.settings.budget, FEW * labelled):
        return False
    last = session.scalar(
        select(func.max(Submission.labelled_at)).filter_by(project_id=work.project.id)
    )
    # Of a clock that is ahead nothing can be told.
    return last is not None and abs(now() - last) < PAUSE


def _count_no_deleted(project: Project, current: Round | None, labelled: int) -> None:
    """Count from fewer labels where some were deleted: new ones must not make up for them."""
    project.training_labels = min(project.training_labels, labelled)
    if current is not None:
        current.labels = min(current.labels, labelled)
        if current.training_asked is not None:
            current.training_asked = min(current.training_asked, labelled)


def _resume(work: Context, session: Session, unfinished: Round) -> str | None:
    """Go on with a round whose job has failed for good; None where its job is on its way."""
    kind = MADE_BY[unfinished.state]
    if work.services.jobs.is_active(session, work.project.id, kind):
        return None
    if _has_just_failed(session, work.project.id, kind):
        return None
    work.request(session, kind, f"round {unfinished.number}, which had stopped here")
    return f"round {unfinished.number} goes on"


def _has_just_failed(session: Session, project_id: int, *kinds: str) -> bool:
    """Whether the last job of these kinds has failed for good, a short while ago."""
    last = session.scalars(
        select(Job).where(Job.project_id == project_id, Job.kind.in_(kinds)).order_by(Job.id.desc())
    ).first()
    if last is None or last.finished_at is None or last.state != "failed":
        return False
    return now() - last.finished_at < RESUME_AFTER


def _start(work: Context, session: Session, labelled: int) -> str:
    """The first round, or what is due after the pool had been exhausted."""
    total = count_tasks(session, work.project.id)
    if total == 0:
        return "the project has no tasks yet"
    project = session.get_one(Project, work.project.id)
    left = session.scalar(select(func.count()).where(waiting(project.id)))
    untrained = project.serving_version_id is None or not left
    trainable = labelled >= work.settings.min_labels and labelled > project.training_labels
    if untrained and trainable and not _more_may_follow(work, session, labelled):
        # Noted before the training begins: one that fails is not asked for again and again.
        project.training_labels = labelled
        work.request(session, "train", f"{labelled} labels and no round to label")
        return "a training is due"
    if not left:
        return "every image that can be used is labelled"
    if work.services.jobs.is_active(session, project.id, "train"):
        return "a training is under way"
    if _has_just_failed(session, project.id, *MADE_BY.values()):
        return "a round failed, and is tried again in a few minutes"
    open_round(session, work.services.jobs, project.id)
    return "a round is due"
