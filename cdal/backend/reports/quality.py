"""How good a model is and what selection saved, as the API gives it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cdal.backend.reports.view import View
from cdal.backend.store.tables import ModelVersion


class ClassView(View):
    """How well a class is known."""

    name: str
    count: int = Field(description="Held-out images, pixels or boxes of it.")
    score: float | None = Field(description="Recall, IoU or average precision; null without any.")


class ConfusionView(View):
    """A class that is taken for another."""

    true: str
    taken_for: str
    count: int
    share: float = Field(description="Of all that are of the true class.")


class QualityView(View):
    """What was measured of a model version on the held-out images."""

    version: int
    metric: str | None
    images: int
    values: dict[str, float]
    classes: list[ClassView]
    matrix: list[list[int]] = Field(
        description="Rows are what it is, columns what it is taken for; for detectors, the last "
        "column is for boxes where nothing was found."
    )
    confused: list[ConfusionView] = Field(description="The worst, the worst first.")


class CurvePointView(View):
    labels: int
    value: float


class SavingsView(View):
    """How many labels selection has saved, by the setting `random_share`."""

    version: int | None = Field(description="The newest model version that was compared.")
    known: bool
    why: str | None = Field(description="Why it is not known yet.")
    metric: str | None = None
    images: int | None = Field(None, description="Held-out images that were drawn at random.")
    random: CurvePointView | None = Field(None, description="The model of random labels alone.")
    curve: list[CurvePointView] = Field([], description="The versions that served, on them.")
    needed: float | None = Field(None, description="Selected labels worth the random ones.")
    saved: float | None = None
    low: float | None = Field(None, description="Where the 90% interval begins.")
    high: float | None = Field(None, description="Where it ends.")
    at_least: bool | None = Field(None, description="Whether the estimate is only a lower bound.")
    at_most: bool | None = Field(None, description="Whether it is only an upper bound.")


MOST_CONFUSED = 8
"""Pairs of classes that are named, the most frequent first."""

MISSED = "nothing (missed)"
"""What a detector takes an object for where it finds no box."""


def quality_status(version: ModelVersion) -> dict[str, Any]:
    """What was measured of a model version on the held-out images, as JSON data."""
    metrics = version.metrics
    classes = list(metrics.get("per_class", {}))
    matrix = [list(row) for row in metrics.get("confusion", ())]
    return {
        "version": version.number,
        "metric": metrics.get("main_name"),
        "images": metrics.get("images", 0),
        "values": metrics.get("values", {}),
        "classes": [
            {"name": name, "count": score["count"], "score": score["score"]}
            for name, score in metrics.get("per_class", {}).items()
        ],
        "matrix": matrix,
        "confused": _most_confused(classes, matrix),
    }


def _most_confused(classes: list[str], matrix: list[list[int]]) -> list[dict[str, Any]]:
    """The pairs that are mistaken most, by their share of the true class.

    The matrix of a detector has a column more than rows.
    """
    taken_for = [*classes, MISSED]
    pairs: list[dict[str, Any]] = [
        {"true": classes[i], "taken_for": taken_for[j], "count": count, "share": count / sum(row)}
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    pairs.sort(key=lambda pair: (pair["share"], pair["count"]), reverse=True)
    return pairs[:MOST_CONFUSED]
