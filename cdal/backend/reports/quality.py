"""Quality: how good a model version is, class by class, and what it confuses."""

from __future__ import annotations

from pydantic import Field
from sqlalchemy.orm import Session

from cdal.backend.reports.view import View
from cdal.backend.store.tables import ClassMetrics, ModelVersion

MOST_CONFUSED = 8
"""Pairs of classes that are listed."""

MISSED = "nothing (missed)"
"""What a detector takes an object for where it finds no box."""


class ClassView(View):
    """How well a class is known."""

    name: str
    count: int = Field(description="Its held-out images, pixels or boxes.")
    score: float | None = Field(
        description="Recall, IoU or average precision; null where nothing was held out."
    )


class ConfusionView(View):
    """A class that is taken for another."""

    true: str
    taken_for: str
    count: int
    share: float = Field(description="Share of the true class.")


class QualityView(View):
    """What was measured of a model version on the held-out images."""

    version: int
    metric: str | None
    images: int
    values: dict[str, float]
    classes: list[ClassView]
    matrix: list[list[int]] = Field(
        description="Rows are the true classes, columns what they were taken for; a detector has "
        "one more column, for boxes that were missed."
    )
    confused: list[ConfusionView] = Field(description="The worst, the worst first.")


def quality_view(session: Session, version: ModelVersion) -> QualityView:
    """What was measured of a model version on the held-out images."""
    metrics = version.metrics
    measured = session.get(ClassMetrics, version.id)
    per_class = {} if measured is None else measured.per_class
    classes = list(per_class)
    matrix = [] if measured is None else _matrix(measured)
    return QualityView(
        version=version.number,
        metric=metrics.get("main_name"),
        images=metrics.get("images", 0),
        values=metrics.get("values", {}),
        classes=[
            ClassView(name=name, count=score["count"], score=score["score"])
            for name, score in per_class.items()
        ],
        matrix=matrix,
        confused=_most_confused(classes, matrix),
    )


def _matrix(measured: ClassMetrics) -> list[list[int]]:
    if not measured.columns:
        return []
    matrix = [[0] * measured.columns for _ in measured.per_class]
    for row, column, count in measured.cells:
        matrix[row][column] = count
    return matrix


def _most_confused(classes: list[str], matrix: list[list[int]]) -> list[ConfusionView]:
    """The pairs that are confused most, by their share of the true class.

    The matrix of a detector has one more column than rows.
    """
    taken_for = [*classes, MISSED]
    pairs = [
        ConfusionView(true=classes[i], taken_for=taken_for[j], count=count, share=count / sum(row))
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if i != j and count
    ]
    pairs.sort(key=lambda pair: (pair.share, pair.count), reverse=True)
    return pairs[:MOST_CONFUSED]
