"""Second look: tasks whose labels may be wrong, for the project's page and a Data Manager tab."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from cdal.backend.annotations.agreement import SAME_OBJECT
from cdal.backend.errors import LabelStudioError
from cdal.backend.loop.context import Context
from cdal.backend.store.tables import Annotation, Project

log = logging.getLogger(__name__)

CONFIDENT = 0.8
"""A prediction with this confidence or more speaks against a label that contradicts it."""

MOST_TASKS = 100
"""Tasks listed as worth a second look."""

MOST_IN_TAB = 50
"""Of these, in the Data Manager's tab: it has a filter for each."""


@dataclass(frozen=True, slots=True)
class SecondLook:
    """A task that is worth a second look.

    Attributes:
        task: its number in Label Studio.
        agreement: the mean of its annotators; None where it is no reason.
        confidence: of a prediction that the label contradicts; None where it is no reason.
    """

    task: int
    agreement: float | None
    confidence: float | None


def show(work: Context) -> None:
    """Make the Data Manager's tab list the tasks that are worth a second look now.

    A sync does not fail with it: the next one that reads changes tries again.
    """
    with work.services.store.reading() as session:
        project = session.get_one(Project, work.project.id)
        shown, view_id = project.second_look, project.second_look_view_id
        tasks = sorted(one.task for one in second_looks(session, project.id)[:MOST_IN_TAB])
    if tasks == shown:
        return
    try:
        view_id = work.client.show_second_look(tasks, view_id)
    except LabelStudioError as error:
        log.warning("The tab of tasks that are worth a second look is out of date: %s", error)
        return
    with work.services.store.transaction() as session:
        project = session.get_one(Project, work.project.id)
        project.second_look, project.second_look_view_id = tasks, view_id


def second_looks(session: Session, project_id: int) -> list[SecondLook]:
    """The tasks of a project that are worth a second look, the worst first."""
    settled = select(Annotation.task_id).where(
        Annotation.project_id == project_id, Annotation.is_truth
    )
    contradicts = (Annotation.kept <= SAME_OBJECT) & (Annotation.confidence >= CONFIDENT)
    rows = session.scalars(
        select(Annotation).where(
            Annotation.project_id == project_id,
            or_(Annotation.others.is_not(None), contradicts & ~Annotation.is_changed),
            Annotation.task_id.not_in(settled),
        )
    )
    by_task: dict[int, list[Annotation]] = defaultdict(list)
    for row in rows:
        by_task[row.task_id].append(row)
    found = [_look_at(task, of_task) for task, of_task in by_task.items()]
    worth = [one for one in found if one.agreement is not None or one.confidence is not None]
    return sorted(worth, key=_order)[:MOST_TASKS]


def _look_at(task: int, rows: Sequence[Annotation]) -> SecondLook:
    agreement = _mean(row.others for row in rows)
    confidences = [
        row.confidence
        for row in rows
        if row.kept is not None
        and row.confidence is not None
        and not row.is_changed
        and row.kept <= SAME_OBJECT
        and row.confidence >= CONFIDENT
    ]
    return SecondLook(
        task=task,
        agreement=agreement if agreement is not None and agreement <= SAME_OBJECT else None,
        confidence=max(confidences, default=None),
    )


def _order(one: SecondLook) -> tuple[float, float, int]:
    """People who disagree come before a model that contradicts, and the clearest cases first."""
    return (
        2.0 if one.agreement is None else one.agreement,
        -(one.confidence or 0.0),
        one.task,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None
