"""The rows of detection targets: left, top, right, bottom in pixels, and a class index."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_SIDE = 1.0
"""Boxes with a shorter side than this, in pixels of the network's input, are dropped: nothing of
such an object is visible, and detectors reject boxes without an area."""


def rescaled(target: Tensor, height: int, width: int, size: int) -> Tensor:
    """Rescale the rows (K, 5) of an image of this height and width to a square of side ``size``.

    Returns:
        (K', 5) float32, without boxes that are too small or outside the image.
    """
    scale = torch.tensor([size / width, size / height, size / width, size / height, 1.0])
    return clipped(target.float() * scale.to(target.device), size)


def within(corners: Tensor, content: tuple[int, int]) -> Tensor:
    """Clip boxes (K, 4) to an image of this many rows and columns."""
    limits = corners.new_tensor([content[1], content[0]] * 2)
    return corners.clamp(min=0).minimum(limits)


def clipped(target: Tensor, size: int) -> Tensor:
    """Clip rows (K, 5) to a square image of side ``size``, and drop boxes that become too small.

    Returns:
        (K', 5).
    """
    corners = target[:, :4].clamp(0, size)
    sides = corners[:, 2:] - corners[:, :2]
    kept = (sides >= MIN_SIDE).all(1)
    return torch.cat([corners, target[:, 4:]], 1)[kept]
