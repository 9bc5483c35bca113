"""Agreement: what is recorded of submitted annotations, whose labels stay in Label Studio.

That is how far each agrees with the pre-annotation that it began with, with other people's of the
same image, and with what models learn of them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from cdal.backend.annotations import Truth, read_annotations, truths_of
from cdal.backend.annotations.agreement import agreement_over
from cdal.backend.annotations.format import counting_annotations, person_of
from cdal.backend.loop import pre_annotations
from cdal.backend.loop.context import Context
from cdal.backend.loop.pre_annotations import Kept
from cdal.backend.store.queries import IDS_PER_QUERY, chunks, is_id
from cdal.backend.store.tables import Annotation

Given = Mapping[str, Any]
"""An annotation, as Label Studio has it."""


def compare(
    work: Context, task_id: int, annotations: Sequence[Given], was_shown: bool
) -> list[Annotation]:
    """Compare the submitted annotations of a task.

    What one was compared with once, as its pre-annotation, stays as it is: later corrections say
    nothing about the prediction.

    Args:
        work: the running job.
        task_id: of the task.
        annotations: all of the task, without drafts.
        was_shown: whether people may have seen a pre-annotation, see `shown_tasks`.

    Returns:
        A row for each annotation that there is something to compare with.
    """
    submitted = [
        one for one in annotations if not one.get("was_cancelled") and is_id(one.get("id"))
    ]
    if not was_shown and len(submitted) < 2:
        return []
    known: dict[int, Annotation] = {}
    if was_shown:
        with work.services.store.reading() as session:
            query = select(Annotation).filter_by(project_id=work.project.id, task_id=task_id)
            known = {row.annotation_id: row for row in session.scalars(query)}
    truths = {
        one["id"]: truth
        for one in submitted
        if (truth := truths_of(work.controls, one.get("result"), work.settings))
    }
    rows = []
    for one in submitted:
        if one["id"] not in truths:
            continue
        before = known.get(one["id"])
        row = _row(work, task_id, one, before)
        if before is None and was_shown:
            kept = pre_annotations.kept(work, task_id, one, truths[one["id"]])
        else:
            kept = None if before is None else Kept.of(before)
        if kept is not None:
            row.round, row.kept, row.confidence = kept
        rows.append(row)
    _compare_people(work, submitted, truths, rows)
    return [row for row in rows if row.kept is not None or row.others is not None]


def _row(work: Context, task_id: int, given: Given, before: Annotation | None) -> Annotation:
    at = str(given.get("updated_at") or "")[:40]
    first = before.first_read if before is not None else at
    return Annotation(
        project_id=work.project.id,
        annotation_id=given["id"],
        task_id=task_id,
        annotator=person_of(given),
        is_truth=bool(given.get("ground_truth")),
        first_read=first,
        is_changed=bool(before is not None and (before.is_changed or (first and first != at))),
    )


def _compare_people(
    work: Context,
    submitted: Sequence[Given],
    truths: Mapping[int, Mapping[str, Truth]],
    rows: Iterable[Annotation],
) -> None:
    """Compare each person's latest annotation with the others', and with what models learn."""
    people = [{**one, "ground_truth": False} for one in submitted]
    latest = [one["id"] for one in counting_annotations(people) if one["id"] in truths]
    if len(latest) < 2:
        return
    learnt = {
        control.from_name: truth
        for control in work.controls
        if (truth := read_annotations(control, submitted, work.settings).truth) is not None
    }
    counting = {one["id"] for one in counting_annotations(submitted)}
    for row in rows:
        if row.annotation_id not in latest:
            continue
        own = truths[row.annotation_id]
        others = [truths[number] for number in latest if number != row.annotation_id]
        agreed = [agreement_over(own, other) for other in others]
        known = [share for share in agreed if share is not None]
        row.others = mean(known) if known else None
        if counting != {row.annotation_id}:  # it agrees with itself
            row.consensus = agreement_over(own, learnt)


def record(
    session: Session, project_id: int, task_ids: Sequence[int], rows: Iterable[Annotation]
) -> None:
    """Replace what is recorded of the annotations of these tasks."""
    for ids in chunks(task_ids, IDS_PER_QUERY):
        session.execute(
            delete(Annotation).where(
                Annotation.project_id == project_id, Annotation.task_id.in_(ids)
            )
        )
    session.add_all(rows)
