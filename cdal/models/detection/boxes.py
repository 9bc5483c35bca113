"""Rows of a detection target: left, top, right, bottom in pixels, and the index of a class."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_SIDE = 1.0
"""Boxes with a side below this many pixels of the network's input are dropped: there is nothing
left of such an object to be seen, and detectors refuse a box without an area."""


def rescaled(target: Tensor, height: int, width: int, size: int) -> Tensor:
    """Rows (K, 5) of an image of this height and width, for that image resized to a square.

    Returns:
        (K', 5) float32; without boxes that are too small or lie outside.
    """
    scale = torch.tensor([size / width, size / height, size / width, size / height, 1.0])
    return clipped(target.float() * scale.to(target.device), size)


def clipped(target: Tensor, size: int) -> Tensor:
    """Cut rows (K, 5) off at the borders of a square image and drop those of which too little is
    left, (K', 5).
    """
    corners = target[:, :4].clamp(0, size)
    sides = corners[:, 2:] - corners[:, :2]
    kept = (sides >= MIN_SIDE).all(1)
    return torch.cat([corners, target[:, 4:]], 1)[kept]
