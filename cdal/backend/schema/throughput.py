"""How fast people label, as the API gives it."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from cdal.backend.schema.view import View


class BarView(View):
    from_: datetime = Field(alias="from")
    labels: int


class OverTimeView(View):
    step_seconds: int
    bars: list[BarView]


class AnnotatorView(View):
    """Somebody who labels."""

    number: int = Field(description="Label Studio's.")
    name: str
    labels: int
    median_seconds: float | None = Field(description="That an image takes.")
    last: datetime


class ThroughputView(View):
    """How fast people label."""

    labels: int
    last_hour: int
    last_day: int
    median_seconds: float | None
    over_time: OverTimeView
    annotators: list[AnnotatorView]
