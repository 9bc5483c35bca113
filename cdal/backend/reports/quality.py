"""Quality: how good a model version is, class by class, and what it confuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

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
    control: str = Field(description="Name of the control that it is for.")
    metric: str | None
    images: int
    values: dict[str, float]
    classes: list[ClassView]
    matrix: list[list[int]] = Field(
        description="Rows are the true classes, columns what they were taken for; a detector has "
        "one more column, for boxes that were missed."
    )
    confused: list[ConfusionView] = Field(description="The worst, the worst first.")


def quality_view(
    session: Session, version: ModelVersion, most_classes: int | None = None
) -> QualityView:
    """What was measured of a model version on the held-out images.

    Args:
        session: to read with.
        version: the model version.
        most_classes: leave the matrix of more classes empty; None: never.
    """
    metrics = version.metrics
    measured = session.get(ClassMetrics, version.id)
    per_class = {} if measured is None else measured.per_class
    classes = list(per_class)
    is_shown = most_classes is None or len(classes) <= most_classes
    matrix = _matrix(measured) if measured is not None and is_shown else []
    return QualityView(
        version=version.number,
        control=version.control,
        metric=metrics.get("main_name"),
        images=metrics.get("images", 0),
        values=metrics.get("values", {}),
        classes=[
            ClassView(name=name, count=score["count"], score=score["score"])
            for name, score in per_class.items()
        ],
        matrix=matrix,
        confused=[] if measured is None else _most_confused(classes, measured.cells),
    )


def _matrix(measured: ClassMetrics) -> list[list[int]]:
    if not measured.columns:
        return []
    matrix = [[0] * measured.columns for _ in measured.per_class]
    for row, column, count in measured.cells:
        matrix[row][column] = count
    return matrix


def _most_confused(
    classes: Sequence[str], cells: Sequence[tuple[int, int, int]]
) -> list[ConfusionView]:
    """The pairs that are confused most, by their share of the true class.

    The matrix of a detector has one more column than rows.
    """
    taken_for = [*classes, MISSED]
    totals: Counter[int] = Counter()
    for row, _, count in cells:
        totals[row] += count
    pairs = [(count / totals[i], count, i, j) for i, j, count in cells if i != j]
    pairs.sort(key=lambda pair: pair[:2], reverse=True)
    return [
        ConfusionView(true=classes[i], taken_for=taken_for[j], count=count, share=share)
        for share, count, i, j in pairs[:MOST_CONFUSED]
    ]
