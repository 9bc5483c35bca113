"""Sync: read what changed in Label Studio, and decide what is to be done about it."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cdal.backend.loop import prune, recheck
from cdal.backend.loop.changes import read_changes
from cdal.backend.loop.connection import POLL, is_connected
from cdal.backend.loop.context import Context
from cdal.backend.loop.queue import top_up
from cdal.backend.loop.rounds import MADE_BY, UNFINISHED, begin_round, has_its_budget, is_finished
from cdal.backend.store.queries import count_labelled, count_tasks, waiting
from cdal.backend.store.tables import (
    Job,
    Project,
    Round,
    Submission,
    now,
)

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
    begin_round(session, work.services.jobs, project.id)
    return "a round is due"
