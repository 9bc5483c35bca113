"""Segmentation in Label Studio's format: `BitmaskLabels`, one PNG per region as a data: address.

Label Studio's page stretches the PNG over the image and shows its alpha alone: black where the
region is, transparent elsewhere. What a mask covers is decided as with brushes.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from PIL import Image

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.format import DAMAGED, WITHOUT_PIXEL, Labelled, Reading, Region
from cdal.backend.annotations.masks import LabelMap, Mask, covered_by, read_shapes, resize
from cdal.backend.annotations.painted import regions_of_masks
from cdal.backend.images.embedded import embedded_bytes, is_embedded
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import Segmentation

MOST_PIXELS = 40_000_000
"""A larger mask is not read, however few bytes encode it: decoding takes five bytes per pixel."""

MOST_BYTES = 2_000_000
"""A larger file is not read."""

PIXEL_COST = 5
"""A pixel of the file takes as long as an area takes for so many pixels."""


@dataclass(frozen=True, slots=True)
class BitmaskShape:
    """A region's mask, encoded.

    Attributes:
        label: index of its label.
        file: the PNG.
        pixels: how many it has.
    """

    label: int
    file: bytes
    pixels: int

    def cost(self, height: int, width: int) -> int:
        """The pixels of the mask and those of the image."""
        return PIXEL_COST * self.pixels + height * width

    def paint(self, target: LabelMap) -> str | None:
        """Set the covered pixels to its label; returns what is wrong if none can be set."""
        try:
            with _open(self.file) as image:
                alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        except Exception:  # noqa: BLE001 — what Pillow raises on damaged files is not documented
            return DAMAGED
        mask = covered_by(alpha)
        if mask is None:
            return WITHOUT_PIXEL
        covered = resize(mask, target.shape) > 0
        target[covered] = self.label
        return None if covered.any() else WITHOUT_PIXEL

    def content(self) -> bytes:
        """The file."""
        return self.file


def to_result(
    control: Control,
    classes: Sequence[str],
    finding: Segmentation,
    size: tuple[int, int],
    settings: ProjectSettings,
) -> list[Region]:
    """A region per class, or per connected part of one; see `painted.regions_of_masks`."""
    return regions_of_masks(control, classes, finding, size, settings, "bitmask", _value)


def _value(mask: Mask) -> dict[str, Any]:
    """The mask as Label Studio's page writes it: black, and transparent outside."""
    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[:, :, 3] = mask * np.uint8(255)
    _, file = cv2.imencode(".png", pixels)
    return {"imageDataURL": f"data:image/png;base64,{b64encode(file.tobytes()).decode()}"}


def read(control: Control, result: Sequence[Any], settings: ProjectSettings) -> Reading:
    """The regions in their order; those that cannot be read are left out."""
    return read_shapes(control, result, settings, _shape)


def _shape(found: Labelled, label: int) -> BitmaskShape | None:
    """A region if it holds a PNG that is not too large, which its header says."""
    given = found.value.get("imageDataURL")
    if not isinstance(given, str) or not is_embedded(given):
        return None
    try:
        file = embedded_bytes(given, MOST_BYTES)
        with _open(file) as image:
            pixels = image.width * image.height
    except Exception:  # noqa: BLE001 — as in paint
        return None
    return None if pixels > MOST_PIXELS else BitmaskShape(label, file, pixels)


def _open(file: bytes) -> Image.Image:
    return Image.open(BytesIO(file), formats=("PNG",))
