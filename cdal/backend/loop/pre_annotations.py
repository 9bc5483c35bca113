"""Pre-annotations: what people made of the predictions that they were shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from cdal.backend.annotations import Truth, read_result
from cdal.backend.annotations.agreement import agreement
from cdal.backend.loop.context import Context
from cdal.backend.loop.predictions import classes_of, result_of, stored_findings
from cdal.backend.loop.rounds import round_of_queue
from cdal.backend.store.queries import IDS_PER_QUERY, chunks, is_id
from cdal.backend.store.tables import Annotation, Pick, Round


def compare(
    work: Context, task_id: int, annotations: Iterable[Mapping[str, Any]]
) -> list[Annotation]:
    """What the submitted annotations of a task kept of their pre-annotations.

    An annotation names the prediction that it began with. Where that is gone, or none is named, it
    is compared with what the newest round that queued the task had predicted. What was compared
    once stays as it is: later corrections say nothing about the pre-annotation.

    Returns:
        A row for each annotation for which there is one to compare with.
    """
    with work.services.store.reading() as session:
        known = {
            row.annotation_id: row
            for row in session.scalars(
                select(Annotation).filter_by(project_id=work.project.id, task_id=task_id)
            )
        }
        queued = _queued(work, session, task_id)
    found: list[Annotation] = []
    for annotation in annotations:
        number = annotation.get("id")
        if annotation.get("was_cancelled") or not is_id(number):
            continue
        before = known.get(number)
        begun = (before.round, before.kept) if before else _kept(work, annotation, queued)
        if begun is None:
            continue
        found.append(
            Annotation(
                project_id=work.project.id,
                annotation_id=number,
                task_id=task_id,
                annotator=_person(annotation.get("completed_by")),
                round=begun[0],
                kept=begun[1],
            )
        )
    return found


def shown_tasks(session: Session, project_id: int) -> set[int]:
    """The tasks that a round has queued, so that people may have seen a pre-annotation."""
    queued = (
        select(Pick.task_id)
        .join(Round, Round.id == Pick.round_id)
        .where(Round.project_id == project_id, Pick.state == "queued")
    )
    compared = select(Annotation.task_id).where(Annotation.project_id == project_id)
    return set(session.scalars(queued.union(compared)))


def record(
    session: Session, project_id: int, task_ids: Sequence[int], rows: Iterable[Annotation]
) -> None:
    """Replace what is known of the annotations of these tasks."""
    for ids in chunks(task_ids, IDS_PER_QUERY):
        session.execute(
            delete(Annotation).where(
                Annotation.project_id == project_id, Annotation.task_id.in_(ids)
            )
        )
    session.add_all(rows)


Shown = tuple[int, Truth]
"""The number of a round, and what its prediction for a task says."""


def _kept(
    work: Context, annotation: Mapping[str, Any], queued: Shown | None
) -> tuple[int, float] | None:
    """The round of an annotation's pre-annotation, and how far it agrees with it."""
    parent = annotation.get("parent_prediction")
    shown = _named(work, parent) if is_id(parent) else None
    shown = shown or queued
    truth = read_result(work.control, annotation.get("result"), work.settings).truth
    if shown is None or truth is None:
        return None
    return shown[0], agreement(shown[1], truth)


def _named(work: Context, number: int) -> Shown | None:
    """The prediction with this number, if one of our rounds queued it."""
    prediction = work.client.prediction(number)
    of_round = None if prediction is None else round_of_queue(prediction.model_version)
    if prediction is None or of_round is None:
        return None
    # Without a model, a round queues predictions that say nothing.
    if not prediction.result and not _has_model(work, prediction.model_version):
        return None
    truth = read_result(work.control, prediction.result, work.settings).truth
    return None if truth is None else (of_round, truth)


def _has_model(work: Context, queue_version: str) -> bool:
    query = select(Round.model_version_id).filter_by(
        project_id=work.project.id, queue_version=queue_version
    )
    with work.services.store.reading() as session:
        return session.scalars(query).first() is not None


def _queued(work: Context, session: Session, task_id: int) -> Shown | None:
    """What the newest round that queued a task predicted for it, while that is kept."""
    newest = session.scalars(
        select(Round)
        .join(Pick, Pick.round_id == Round.id)
        .where(Round.project_id == work.project.id, Pick.task_id == task_id, Pick.state == "queued")
        .order_by(Round.ranking.desc())
    ).first()
    packed = {} if newest is None else stored_findings(session, newest, [task_id])
    if newest is None or not packed:
        return None
    classes = classes_of(session, newest)
    result = result_of(work.control, work.settings, classes, packed[task_id])
    truth = read_result(work.control, result, work.settings).truth
    return None if truth is None else (newest.number, truth)


def _person(completed_by: object) -> int | None:
    """The number of a user, whom Label Studio names by number or whole."""
    given = completed_by.get("id") if isinstance(completed_by, Mapping) else completed_by
    return given if is_id(given) else None
