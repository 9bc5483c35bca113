"""Agreement: how far annotators agree, and the tasks that are worth a second look."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean

from pydantic import Field
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from cdal.backend.annotations.agreement import SAME_OBJECT
from cdal.backend.reports.view import View
from cdal.backend.store.tables import Annotation, Annotator, Project

CONFIDENT = 0.8
"""A prediction with this confidence or more speaks against a label that contradicts it."""

MOST_TASKS = 100
"""Tasks listed as worth a second look."""


class AgreeingView(View):
    """How far somebody agrees with the others."""

    number: int | None = Field(description="The user's number in Label Studio.")
    name: str
    annotations: int = Field(description="Of images that others have annotated, too.")
    others: float = Field(description="Mean agreement with each other person's annotation.")
    consensus: float | None = Field(
        description="Mean agreement with what models learn: the ground truth, or the consensus of "
        "all annotators; null where only their own annotations are the ground truth."
    )


class SecondLookView(View):
    """A task that is worth a second look."""

    task: int = Field(description="Its number in Label Studio.")
    agreement: float | None = Field(
        description="Mean agreement of its annotators; null where they agree by more than "
        f"{SAME_OBJECT}, or there is only one."
    )
    confidence: float | None = Field(
        description="Of a prediction that the label contradicts, made by a model that had not "
        f"learnt from the image; null unless it is at least {CONFIDENT}."
    )


class AgreementView(View):
    """How far annotators agree; agreements are from 0 to 1, see docs/labels.md."""

    tasks: int = Field(description="Images that several people have annotated.")
    agreement: float | None = Field(description="Their mean; null without any.")
    annotators: list[AgreeingView]
    second_look: list[SecondLookView] = Field(
        description=f"The worst {MOST_TASKS}, the worst first. A task leaves it when it has a "
        "ground truth, or when its annotators agree and somebody has saved the contradicted label "
        "again."
    )


def agreement_view(session: Session, project: Project) -> AgreementView:
    """How far the annotators of a project agree."""
    of_task = func.avg(Annotation.others)
    by_task = (
        select(of_task.label("agreement"))
        .where(Annotation.project_id == project.id, Annotation.others.is_not(None))
        .group_by(Annotation.task_id)
        .subquery()
    )
    tasks, agreement = session.execute(select(func.count(), func.avg(by_task.c.agreement))).one()
    return AgreementView(
        tasks=tasks,
        agreement=agreement,
        annotators=_annotators(session, project.id),
        second_look=_second_look(session, project.id),
    )


def _annotators(session: Session, project_id: int) -> list[AgreeingView]:
    """People, those with the most annotations first."""
    names = dict(
        session.execute(
            select(Annotator.number, Annotator.name).filter_by(project_id=project_id)
        ).all()
    )
    rows = session.execute(
        select(
            Annotation.annotator,
            func.count(),
            func.avg(Annotation.others),
            func.avg(Annotation.consensus),
        )
        .where(Annotation.project_id == project_id, Annotation.others.is_not(None))
        .group_by(Annotation.annotator)
    )
    found = [
        AgreeingView(
            number=number,
            name="unknown" if number is None else names.get(number, f"annotator {number}"),
            annotations=count,
            others=others,
            consensus=consensus,
        )
        for number, count, others, consensus in rows
    ]
    return sorted(found, key=lambda one: (-one.annotations, one.name))


def _second_look(session: Session, project_id: int) -> list[SecondLookView]:
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


def _look_at(task: int, rows: Sequence[Annotation]) -> SecondLookView:
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
    return SecondLookView(
        task=task,
        agreement=agreement if agreement is not None and agreement <= SAME_OBJECT else None,
        confidence=max(confidences, default=None),
    )


def _order(one: SecondLookView) -> tuple[float, float, int]:
    """People who disagree come before a model that contradicts, and the clearest cases first."""
    return (
        2.0 if one.agreement is None else one.agreement,
        -(one.confidence or 0.0),
        one.task,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None
