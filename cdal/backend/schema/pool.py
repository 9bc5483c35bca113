"""The pool's map, as the API gives it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cdal.backend.schema.view import View


class PointView(View):
    """An image on the pool's map."""

    task: int
    x: float
    y: float
    class_: int = Field(alias="class", description="Index of its most probable class.")
    entropy: float
    state: Literal["labelled", "queued", "skipped", "unlabelled"]
    round: int | None = Field(description="That queued it last.")


class PoolView(View):
    """The pool's map."""

    version: int
    images: int
    classes: list[str]
    counts: dict[str, int]
    points: list[PointView]
