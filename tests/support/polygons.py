"""Drawn scenes labelled with polygons instead of a brush."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cdal.backend.annotations import polygons
from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.settings import ProjectSettings
from cdal.datasets import Example
from cdal.demo.project import brush_config
from cdal.models import Segmentation
from cdal.models.predictions import IGNORED


def polygon_config(classes: Sequence[str]) -> str:
    return brush_config(classes).replace("BrushLabels", "PolygonLabels")


def in_polygons(example: Example, classes: Sequence[str]) -> list[dict[str, Any]]:
    """What a person draws on an image with the polygon tool."""
    mask = example.target()
    control = served_control(polygon_config(classes))
    names = [*classes, *(str(n) for n in range(len(classes), IGNORED + 1))]  # others: no label
    seen = Segmentation(mask, torch.ones_like(mask).float())
    size = (mask.shape[0], mask.shape[1])
    settings = ProjectSettings(polygon_tolerance=0.0, smallest_region=0.0)
    regions = polygons.to_result(control, names, seen, size, settings)
    return [{name: v for name, v in region.items() if name != "score"} for region in regions]
