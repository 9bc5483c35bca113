"""Segmentation in Label Studio's format: `BrushLabels`, one run-length encoded mask per region.

The mask is an image of four channels, of which only the last, alpha, counts; `masks.covered_by`
says from which alpha on a pixel belongs to the region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.format import (
    DAMAGED,
    WITHOUT_PIXEL,
    Labelled,
    Reading,
    Region,
    original_size,
)
from cdal.backend.annotations.masks import LabelMap, Mask, read_shapes, resize
from cdal.backend.annotations.painted import regions_of_masks
from cdal.backend.annotations.rle import CHANNELS, decode_mask, has_bytes, values_in
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import Segmentation

MOST_PIXELS = 80_000_000
"""A larger mask is not read, however few bytes encode it: it takes a byte per pixel."""

MOST_BYTES = 2_000_000
"""A longer encoding is not read: decoding a megabyte takes most of a second."""

BYTE_COST = 300
"""A byte of the encoding takes as long as an area takes for so many pixels."""


@dataclass(frozen=True, slots=True)
class BrushShape:
    """A region's mask, encoded.

    Attributes:
        label: index of its label.
        rle: the encoding.
        size: height and width of the mask in pixels; None if the region does not say: that of its
            image then.
    """

    label: int
    rle: bytes
    size: tuple[int, int] | None

    def cost(self, height: int, width: int) -> int:
        """The pixels of the mask and those of the image, and the encoding."""
        return values_in(self.rle) // CHANNELS + height * width + BYTE_COST * len(self.rle)

    def paint(self, target: LabelMap) -> str | None:
        """Set the covered pixels to its label; returns what is wrong if none can be set."""
        height, width = self.size or target.shape
        if values_in(self.rle) != height * width * CHANNELS:
            return "of another size than its image"
        try:
            mask = decode_mask(self.rle, (height, width))
        except ValueError:
            return DAMAGED
        if mask is None:
            return WITHOUT_PIXEL
        covered = resize(mask, target.shape) > 0
        target[covered] = self.label
        return None if covered.any() else WITHOUT_PIXEL

    def content(self) -> bytes:
        """The encoding and the size."""
        return self.rle + ("" if self.size is None else "{}x{}".format(*self.size)).encode()


def to_result(
    control: Control,
    classes: Sequence[str],
    finding: Segmentation,
    size: tuple[int, int],
    settings: ProjectSettings,
) -> list[Region]:
    """A region per class, or per connected part of one; see `painted.regions_of_masks`."""
    return regions_of_masks(control, classes, finding, size, settings, "brush", _value)


def _value(mask: Mask) -> dict[str, Any]:
    return {"format": "rle", "rle": _encode(mask)}


def _encode(mask: Mask) -> list[int]:
    """Like the library's `mask2rle`, without its slowest step, the repetition of each byte."""
    from label_studio_sdk.converter.brush import encode_rle

    channels = mask.astype(np.uint32) * np.uint32(0xFFFFFFFF)
    encoded: list[int] = encode_rle(channels.view(np.uint8).ravel())
    return encoded


def read(control: Control, result: Sequence[Any], settings: ProjectSettings) -> Reading:
    """The regions in their order; those that cannot be read are left out."""
    return read_shapes(control, result, settings, _shape)


def _shape(found: Labelled, label: int) -> BrushShape | None:
    """A region if its encoding claims the size of its image, checked without decoding it."""
    given = found.value.get("rle")
    if not isinstance(given, list) or len(given) > MOST_BYTES:
        return None
    try:
        rle = bytes(given)
    except (TypeError, ValueError):  # a value that is not a byte
        return None
    named = (found.region.get("original_height"), found.region.get("original_width"))
    size = original_size(found.region)
    if size is None and named != (None, None):
        return None
    values = values_in(rle)
    if not has_bytes(rle) or values > MOST_PIXELS * CHANNELS:
        return None
    if size is not None and values != size[0] * size[1] * CHANNELS:
        return None
    return BrushShape(label, rle, size)
