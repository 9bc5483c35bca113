"""The open round's images, as the API gives them."""

from __future__ import annotations

from typing import Any, Literal

from cdal.backend.schema.view import View


class PickView(View):
    """An image that a round ranked."""

    rank: int
    task: int
    state: Literal["ranked", "sending", "queued"]
    score: float
    reason: dict[str, Any]
    labelled: bool
    skipped: bool


class QueueView(View):
    """The round that the label stream follows, and its images by rank."""

    round: int | None
    selector: str | None
    picks: list[PickView]
