"""Random changes of training images for detection: boxes move with their objects.

As for classification, each image in a batch is changed on its own, from a given generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional

from cdal.models.augment import recolour
from cdal.models.detection.boxes import clipped

ZOOM = 1.5
"""An image is enlarged or reduced by at most this factor."""

SHIFT = 0.25
"""The image's centre moves by at most this share of the side."""

MIN_VISIBLE = 0.3
"""A box is dropped if less than this share of its area remains inside the image."""


def augment_boxes(
    images: Tensor, targets: Sequence[Tensor], draws: Generator
) -> tuple[Tensor, list[Tensor]]:
    """Randomly zoom, shift, flip and recolour each image, and move its boxes accordingly.

    The area around an image is filled with its mean colour: mirroring the image, as for
    classification, would show objects without boxes.

    Args:
        images: (B, 3, S, S) uint8.
        targets: the prepared targets, (K, 5) per image.
        draws: a CPU generator, so that the draws are the same on every device.

    Returns:
        Images (B, 3, S, S) float32 in [0, 255], and targets.
    """
    count, size = len(images), images.shape[-1]
    zooms = ZOOM ** (2 * torch.rand(count, generator=draws) - 1)
    shifts = SHIFT * (2 * torch.rand((2, count), generator=draws) - 1)
    flips = torch.where(torch.rand(count, generator=draws) < 0.5, -1.0, 1.0)
    moved = place(images.float(), zooms, shifts, flips)
    boxes = [
        place_boxes(target, size, float(zooms[i]), shifts[:, i], float(flips[i]))
        for i, target in enumerate(targets)
    ]
    return recolour(moved, draws), boxes


def place(images: Tensor, zooms: Tensor, shifts: Tensor, flips: Tensor) -> Tensor:
    """Enlarge images about their centres, mirror and then shift them.

    Args:
        images: (B, 3, S, S) float32.
        zooms: factors, (B,).
        shifts: to the right and down, as shares of the side, (2, B).
        flips: -1 to swap left and right, otherwise 1, (B,).
    """
    # Maps a position in the result to one in the image; both range from -1 to 1.
    matrices = torch.zeros((len(images), 2, 3))
    matrices[:, 0, 0] = flips / zooms
    matrices[:, 1, 1] = 1 / zooms
    matrices[:, 0, 2] = -2 * shifts[0] * flips / zooms
    matrices[:, 1, 2] = -2 * shifts[1] / zooms
    grid = functional.affine_grid(
        matrices.to(images.device), list(images.shape), align_corners=False
    )
    mean = images.mean((2, 3), keepdim=True)
    return functional.grid_sample(images - mean, grid, align_corners=False) + mean


def place_boxes(target: Tensor, size: int, zoom: float, shift: Tensor, flip: float) -> Tensor:
    """Move an image's boxes (K, 5) as ``place`` moves the image; drop those that leave it."""
    centre = size / 2
    scale = torch.tensor([flip * zoom, zoom])
    corners = (target[:, :4].view(-1, 2, 2) - centre) * scale + centre + shift * size
    # Mirroring swaps left and right.
    corners = torch.cat([corners.amin(1), corners.amax(1)], 1)
    whole = (corners[:, 2:] - corners[:, :2]).prod(1)
    inside = corners.clamp(0, size)
    visible = (inside[:, 2:] - inside[:, :2]).prod(1)
    rows = torch.cat([corners, target[:, 4:]], 1)
    return clipped(rows[visible >= MIN_VISIBLE * whole], size)
