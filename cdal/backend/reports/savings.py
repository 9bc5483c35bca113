"""Savings: how many labels drawn at random are worth those that were selected.

A model is trained on the labels drawn at random alone. The learning curve of the model versions,
measured on the same held-out images, says with how many selected labels they were as good; the
difference is what selection has saved. All of it is measured on held-out images that were drawn at
random, too, so that they stand for the pool. See docs/pages.md.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.store.tables import Project, Yardstick


def savings_status(session: Session, project: Project) -> dict[str, Any]:
    """What is known of the labels that selection has saved, as JSON data."""
    newest = session.scalars(
        select(Yardstick).filter_by(project_id=project.id).order_by(Yardstick.id.desc())
    ).first()
    if newest is None:
        return {"version": None, "known": False, "why": None}
    return {"version": newest.version, **newest.result}
