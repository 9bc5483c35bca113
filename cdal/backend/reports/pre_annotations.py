"""Pre-annotations: how many people submitted as they were, changed a little, or replaced."""

from __future__ import annotations

from pydantic import Field
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from cdal.backend.annotations.agreement import SAME_OBJECT
from cdal.backend.reports.view import View
from cdal.backend.store.tables import Annotation

UNCHANGED = 0.999
"""An agreement from here on is unchanged: Label Studio's page rounds coordinates."""


class PreAnnotationsView(View):
    """What people made of a round's pre-annotations."""

    unchanged: int = Field(description="Annotations that were submitted as predicted.")
    changed: int = Field(
        description=f"Annotations that agree with the prediction by more than {SAME_OBJECT}: for "
        "boxes and masks in terms of IoU, within the same classes."
    )
    replaced: int = Field(description="Annotations that have less in common with the prediction.")
    agreement: float = Field(description="The mean, from 0 to 1; see docs/labels.md.")


def pre_annotations_by_round(session: Session, project_id: int) -> dict[int, PreAnnotationsView]:
    """What people made of the pre-annotations of each round that they submitted one of."""
    kept = Annotation.kept
    unchanged = func.sum(case((kept >= UNCHANGED, 1), else_=0))
    changed = func.sum(case(((kept > SAME_OBJECT) & (kept < UNCHANGED), 1), else_=0))
    query = (
        select(Annotation.round, unchanged, changed, func.count(), func.avg(kept))
        .where(Annotation.project_id == project_id, kept.is_not(None))
        .group_by(Annotation.round)
    )
    return {
        number: PreAnnotationsView(
            unchanged=same, changed=little, replaced=total - same - little, agreement=mean
        )
        for number, same, little, total, mean in session.execute(query)
    }
