"""How good a model version is: class by class, and which classes it takes for which."""

from __future__ import annotations

from typing import Any

from cdal.backend.tables import ModelVersion

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
