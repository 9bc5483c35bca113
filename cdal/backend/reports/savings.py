"""Savings: how many randomly drawn labels the selected ones are worth.

`cdal.backend.loop.savings` estimates them after each training; see docs/pages.md for how.
"""

from __future__ import annotations

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.reports.view import View
from cdal.backend.store.tables import Project, Savings


class CurvePointView(View):
    """A point of a learning curve."""

    labels: int
    value: float


class SavingsView(View):
    """How many labels selection has saved, by the setting `random_share`."""

    version: int | None = Field(description="The newest model version that was compared.")
    known: bool
    why: str | None = Field(description="Why it is not known yet.")
    metric: str | None = None
    images: int | None = Field(None, description="Held-out images that were drawn at random.")
    random: CurvePointView | None = Field(
        None, description="The model that learned from random labels alone."
    )
    curve: list[CurvePointView] = Field(
        [], description="The versions that served, measured on the same images."
    )
    needed: float | None = Field(None, description="Selected labels worth the random ones.")
    saved: float | None = None
    low: float | None = Field(None, description="Lower end of the 90% interval.")
    high: float | None = Field(None, description="Upper end of the 90% interval.")
    at_least: bool | None = Field(None, description="Whether the estimate is only a lower bound.")
    at_most: bool | None = Field(None, description="Whether it is only an upper bound.")


def savings_view(session: Session, project: Project) -> SavingsView:
    """The newest estimate of the labels that selection has saved."""
    newest = session.scalars(
        select(Savings).filter_by(project_id=project.id).order_by(Savings.id.desc())
    ).first()
    if newest is None:
        return SavingsView(version=None, known=False, why=None)
    return SavingsView(version=newest.version, **newest.result)
