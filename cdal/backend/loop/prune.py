"""Prune: remove what later rounds do not need, by the policy in the server's settings."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Select, delete, func, select
from sqlalchemy.orm import Session

from cdal.backend.jobs.manager import was_requested
from cdal.backend.label_studio.data import moment_of, stamp
from cdal.backend.loop.context import Context
from cdal.backend.loop.export import forget_old as forget_old_exports
from cdal.backend.loop.rounds import round_of_queue
from cdal.backend.store.tables import (
    UNTRAINED,
    Event,
    Job,
    ModelVersion,
    Pick,
    Prediction,
    Project,
    Round,
    VersionImages,
    now,
    seconds_since,
)

CHUNK = 500
"""Predictions removed from the store per transaction: they may be large."""
EVERY = timedelta(days=1)
IDLE = timedelta(minutes=30)
"""Old queues are removed only after nobody has labelled for this long: on SQLite, Label Studio
answers annotators with errors while it deletes predictions, at 4 ms each or more
(docs/operations.md)."""


def run(work: Context) -> str:
    """Remove weights, records and predictions that are older than the policy keeps."""
    weights = forget_old_weights(work)
    forget_old_exports(work)
    _forget_records(work)
    queues = _forget_old_queues(work)
    return f"{weights} old weights and the predictions of {queues} old queues removed"


def request_if_due(work: Context, session: Session) -> None:
    """Request pruning once per day."""
    if was_requested(session, work.project.id, "prune") > EVERY:
        work.request(session, "prune", "the daily pruning")


def forget_old_scores(work: Context, current: Round) -> None:
    """Remove the predictions and scores of the model versions before an open round's."""
    if current.model_version_id is None:
        return
    with work.services.store.reading() as session:
        versions = session.scalars(_superseded(work, session, current)).all()
    # What the backbone alone had seen, before there was a model.
    untrained = work.services.config.scores_folder(work.project.id, UNTRAINED)
    shutil.rmtree(untrained, ignore_errors=True)
    for version in versions:
        while (forgotten := _forget_some(work, current, version)) == CHUNK:
            pass
        if forgotten is not None:
            folder = work.services.config.scores_folder(work.project.id, version.number)
            shutil.rmtree(folder, ignore_errors=True)


def _superseded(work: Context, session: Session, current: Round) -> Select[ModelVersion]:
    """The model versions whose scores are no longer needed."""
    # An older version may serve again, and a newer round may be using it right now.
    needed = _versions_of(session, work, Round.ranking >= current.ranking)
    return select(ModelVersion).where(
        ModelVersion.project_id == work.project.id,
        ModelVersion.id.not_in(needed),
        ~ModelVersion.serves,
    )


def _versions_of(session: Session, work: Context, condition: ColumnElement[bool]) -> set[int]:
    """The ids of the model versions of the project's rounds that meet a condition."""
    of_project = Round.project_id == work.project.id
    rows = session.execute(
        select(Round.model_version_id, Round.beside).where(of_project, condition)
    )
    return {number for first, beside in rows for number in (first, *beside) if number is not None}


def _forget_some(work: Context, current: Round, version: ModelVersion) -> int | None:
    """Remove some of a version's predictions; others want to write as well.

    Returns:
        How many; None if the version is needed again by now.
    """
    with work.services.store.transaction() as session:
        if version.id not in {v.id for v in session.scalars(_superseded(work, session, current))}:
            return None
        of_version = Prediction.model_version_id == version.id
        some = session.scalars(select(Prediction.task_id).where(of_version).limit(CHUNK)).all()
        session.execute(delete(Prediction).where(of_version, Prediction.task_id.in_(some)))
        return len(some)


def forget_old_weights(work: Context) -> int:
    """Remove all weights except each control's newest, those in use and those that rounds began
    with.

    Returns:
        How many.
    """
    config = work.services.config
    # As the only writer: nobody lets one of them serve meanwhile.
    with work.services.store.transaction() as session:
        in_use = _versions_of(session, work, Round.state != "closed")
        versions = session.execute(
            select(ModelVersion.id, ModelVersion.number, ModelVersion.control, ModelVersion.serves)
            .filter_by(project_id=work.project.id)
            .order_by(ModelVersion.number.desc())
        ).all()
        newer: Counter[str] = Counter()
        old: list[tuple[int, int]] = []
        for id_, number, control, serves in versions:
            newer[control] += 1
            if newer[control] > config.keep_versions and not serves:
                old.append((id_, number))
        # Refreshed orders make many versions; those that rounds began with tell more.
        began = (
            select(Round.number, func.min(Round.model_version_id))
            .where(Round.project_id == work.project.id, Round.model_version_id.is_not(None))
            .group_by(Round.number)
            .order_by(Round.number.desc())
            .limit(config.keep_versions)
        )
        kept = in_use.union(version_id for _, version_id in session.execute(began))
        gone = [(id_, number) for id_, number in old if id_ not in kept]
        # What has no weights is compared with no other version.
        ids = [id_ for id_, _ in gone]
        session.execute(delete(VersionImages).where(VersionImages.model_version_id.in_(ids)))
        folders = [config.version_folder(work.project.id, number) for _, number in gone]
        there = [folder for folder in folders if folder.exists()]
        for folder in there:
            shutil.rmtree(folder, ignore_errors=True)
    return len(there)


def _forget_records(work: Context) -> None:
    """Remove old events and jobs, and the comparisons of old rounds; the rounds themselves stay."""
    before = _kept_since(work)
    newest = select(func.max(Job.id)).group_by(Job.project_id, Job.kind)
    ended = select(Round.id).where(_ended_before(work, before))
    with work.services.store.transaction() as session:
        session.execute(delete(Event).where(Event.created_at < before))
        session.execute(delete(Job).where(Job.finished_at < before, Job.id.not_in(newest)))
        session.execute(delete(Pick).where(Pick.round_id.in_(ended)))


def _kept_since(work: Context) -> datetime:
    """From which time on the policy keeps records."""
    return now() - timedelta(days=work.services.config.keep_days)


def _ended_before(work: Context, time: datetime) -> ColumnElement[bool]:
    """The condition on rankings that their round, with all its orders, was closed before a time."""
    of_project = Round.project_id == work.project.id
    later = select(Round.number).where(
        of_project, Round.closed_at.is_(None) | (Round.closed_at >= time)
    )
    return of_project & Round.number.not_in(later)


def _forget_old_queues(work: Context) -> int:
    """Remove old queues from Label Studio while nobody labels; return how many."""
    forgotten = 0
    for version in _old_queues(work, work.client.prediction_counts()):
        work.check_stop()
        if not _is_idle(work):
            break
        work.client.delete_predictions(version)
        forgotten += 1
        work.report(0.5, f"{forgotten} old queues removed from Label Studio")
    return forgotten


def _old_queues(work: Context, counts: Mapping[str, int]) -> list[str]:
    """The queue versions, including unfinished ones, of rounds closed long ago; oldest first."""
    with work.services.store.reading() as session:
        followed = session.get_one(Project, work.project.id).queue_version
        ended = select(Round.number).where(_ended_before(work, _kept_since(work)))
        closed = set(session.scalars(ended))
    found = []
    for version in counts:
        number = round_of_queue(version)
        if number in closed and version != followed:
            found.append((number, version))
    return [version for _, version in sorted(found)]


def _is_idle(work: Context) -> bool:
    tasks = work.client.tasks(stamp(datetime.now(UTC) - IDLE))
    times = (moment_of(task.updated_at) for task in tasks)
    # A time far ahead is of a clock that was wrong.
    return all(time is not None and seconds_since(time) > IDLE.total_seconds() for time in times)
