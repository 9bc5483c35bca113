"""Label Studio's formats, both ways: findings become regions, annotations become truths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cdal.backend.annotations import (
    bitmask,
    brush,
    choices,
    multiple_choices,
    polygons,
    rectangles,
)
from cdal.backend.annotations.consensus import consensus
from cdal.backend.annotations.control import Control
from cdal.backend.annotations.format import (
    DAMAGED,
    Format,
    Reading,
    Region,
    Truth,
    counting_annotations,
    is_of_others,
    mark_of,
)
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import Finding

__all__ = [
    "FORMATS",
    "Format",
    "Reading",
    "Region",
    "Truth",
    "mark_of",
    "read_annotations",
    "read_result",
    "to_result",
    "truths_of",
]

FORMATS: Mapping[str, Format] = {
    "Choices": choices,
    "RectangleLabels": rectangles,
    "BrushLabels": brush,
    "BitmaskLabels": bitmask,
    "PolygonLabels": polygons,
}
"""Formats by the control's tag, where a region has one label."""


def format_of(control: Control) -> Format:
    """The format of a control."""
    return multiple_choices if control.multiple else FORMATS[control.tag]


def to_result(
    control: Control,
    classes: Sequence[str],
    finding: Finding,
    size: tuple[int, int],
    settings: ProjectSettings,
) -> list[Region]:
    """A prediction's regions, see `Format.to_result`."""
    return format_of(control).to_result(control, control.names_of(classes), finding, size, settings)


def read_annotations(
    control: Control, annotations: Iterable[Mapping[str, Any]], settings: ProjectSettings
) -> Reading:
    """What a task's annotations together say about its image; see consensus.py.

    Of several, those that cannot be read are left out.
    """
    counting = counting_annotations(annotations)
    readings = [read_result(control, one.get("result"), settings) for one in counting]
    truths = [reading.truth for reading in readings if reading.truth is not None]
    return Reading(
        consensus(control, truths) if truths else None,
        tuple(why for reading in readings for why in reading.left_out),
        frozenset[tuple[int, int]]().union(*(reading.sizes for reading in readings)),
    )


def truths_of(
    controls: Iterable[Control], result: object, settings: ProjectSettings
) -> dict[str, Truth]:
    """What the regions of an annotation or of a prediction say, by the names of the controls."""
    truths = {c.from_name: read_result(c, result, settings).truth for c in controls}
    return {name: truth for name, truth in truths.items() if truth is not None}


def read_result(control: Control, result: object, settings: ProjectSettings) -> Reading:
    """What the regions of an annotation or of a prediction say about the image.

    If all are of other controls that are served, they say nothing about this one's labels.
    """
    if not isinstance(result, list | tuple):  # not even an empty one, which says that there is none
        return Reading(None, (DAMAGED,))
    if is_of_others(control, result):
        return Reading(None)
    return format_of(control).read(control, result, settings)
