"""Agreement: how far annotators agree, and the tasks that are worth a second look."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cdal.backend.annotations.agreement import SAME_OBJECT
from cdal.backend.loop.second_look import CONFIDENT, MOST_TASKS, second_looks
from cdal.backend.reports.view import View
from cdal.backend.store.tables import Annotation, Annotator, Project


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
        second_look=[SecondLookView(**asdict(one)) for one in second_looks(session, project.id)],
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
