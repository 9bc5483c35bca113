"""Pre-annotations: what people made of the predictions that they were shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple, Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.annotations import Truth, truths_of
from cdal.backend.annotations.agreement import agreement_over
from cdal.backend.annotations.format import number
from cdal.backend.loop.context import Context
from cdal.backend.loop.predictions import joined, parts_of
from cdal.backend.loop.rounds import round_of_queue
from cdal.backend.store.queries import is_id
from cdal.backend.store.tables import Annotation, Pick, Round


class Kept(NamedTuple):
    """What somebody made of a pre-annotation.

    Attributes:
        round: the number of the round that queued it.
        agreement: how far the annotation agrees with it.
        confidence: of the pre-annotation, the mean over its regions; None if it has none.
    """

    round: int
    agreement: float
    confidence: float | None

    @classmethod
    def of(cls, row: Annotation) -> Self | None:
        """What was recorded; None if there was no pre-annotation."""
        if row.round is None or row.kept is None:
            return None
        return cls(row.round, row.kept, row.confidence)


class Shown(NamedTuple):
    """A prediction that a round has queued."""

    round: int
    truths: Mapping[str, Truth]
    confidence: float | None


def shown_tasks(session: Session, project_id: int) -> set[int]:
    """The tasks that a round has queued, so that people may have seen a pre-annotation."""
    queued = (
        select(Pick.task_id)
        .join(Round, Round.id == Pick.round_id)
        .where(Round.project_id == project_id, Pick.state == "queued")
    )
    compared = select(Annotation.task_id).where(Annotation.project_id == project_id)
    return set(session.scalars(queued.union(compared)))


def kept(
    work: Context, task_id: int, annotation: Mapping[str, Any], truths: Mapping[str, Truth]
) -> Kept | None:
    """Compare an annotation with its pre-annotation; None if there was none.

    An annotation names the prediction that it began with. Where that is gone, or none is named, it
    is compared with what the newest round that queued the task had predicted.

    Args:
        work: the running job.
        task_id: of the task.
        annotation: as Label Studio has it.
        truths: what it says, by the names of the controls.
    """
    parent = annotation.get("parent_prediction")
    shown = _named(work, parent) if is_id(parent) else None
    shown = shown or _queued(work, task_id)
    if shown is None:
        return None
    agreed = agreement_over(shown.truths, truths)
    return None if agreed is None else Kept(shown.round, agreed, shown.confidence)


def _named(work: Context, parent: int) -> Shown | None:
    """The prediction with this number, if one of our rounds queued it."""
    prediction = work.client.prediction(parent)
    of_round = None if prediction is None else round_of_queue(prediction.model_version)
    if prediction is None or of_round is None:
        return None
    # Without a model, a round queues predictions that say nothing.
    if not prediction.result and not _has_model(work, prediction.model_version):
        return None
    return _shown(work, of_round, prediction.result)


def _has_model(work: Context, queue_version: str) -> bool:
    query = select(Round.model_version_id).filter_by(
        project_id=work.project.id, queue_version=queue_version
    )
    with work.services.store.reading() as session:
        return session.scalars(query).first() is not None


def _queued(work: Context, task_id: int) -> Shown | None:
    """What the newest round that queued a task predicted for it, while that is kept."""
    with work.services.store.reading() as session:
        newest = session.scalars(
            select(Round)
            .join(Pick, Pick.round_id == Round.id)
            .where(
                Round.project_id == work.project.id,
                Pick.task_id == task_id,
                Pick.state == "queued",
            )
            .order_by(Round.ranking.desc())
        ).first()
        if newest is None:
            return None
        parts = parts_of(session, newest, work.controls, [task_id])
    if not any(part.findings for part in parts):
        return None
    result = joined([part.result(work.settings, task_id) for part in parts])
    return _shown(work, newest.number, result)


def _shown(work: Context, of_round: int, result: Sequence[Any]) -> Shown | None:
    truths = truths_of(work.controls, result, work.settings)
    given = [number(one.get("score")) for one in result if isinstance(one, Mapping)]
    scores = [score for score in given if score is not None]
    return Shown(of_round, truths, mean(scores) if scores else None) if truths else None
