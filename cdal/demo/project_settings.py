"""The project settings that suit the images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cdal.datasets import Example, ImageSet
from cdal.models.predictions import IGNORED

LARGEST_UNCOVERED_SHARE = 0.2
LOOKED_AT = 20

MIN_LABELS = 10
"""The backend's own, below which it trains nothing."""


def project_settings(
    images: ImageSet, to_label: Sequence[Example], budget: int | None
) -> dict[str, Any]:
    """What the demo types in the project's Model page.

    Args:
        images: the set.
        to_label: the examples in the project.
        budget: images a round asks for; None: a fifteenth of them, at least 10 and at most 100.
    """
    settings: dict[str, Any] = {"budget": budget or max(10, min(100, len(to_label) // 15))}
    if settings["budget"] < MIN_LABELS:
        settings["min_labels"] = max(2, settings["budget"])  # so that every round trains
    if images.task == "segmentation" and _uncovered_share(to_label) < LARGEST_UNCOVERED_SHARE:
        settings["unlabelled"] = "ignore"
    return settings


def _uncovered_share(examples: Sequence[Example]) -> float:
    """The share of pixels that have no class, over some masks.

    Where it is small, every pixel is meant to have a class, and what has none is a pixel that was
    left out; where it is large, it is all that is none of the classes: background.
    """
    masks = [example.target() for example in examples[:LOOKED_AT]]
    uncovered = sum(int((mask == IGNORED).sum()) for mask in masks)
    return uncovered / max(1, sum(mask.numel() for mask in masks))
