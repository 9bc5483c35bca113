"""Random changes of images and their masks together."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

from cdal.models.augment import recolour
from cdal.models.predictions import IGNORED

SCALE = 2.0
"""An image is shown larger or smaller by at most this factor, all powers of it equally likely."""

GREY = 114.0
"""What is seen beyond the image's border, about the mean of photographs."""


def augment_masks(images: Tensor, masks: Tensor, draws: Generator) -> tuple[Tensor, Tensor]:
    """Scale, crop, flip and recolour each image at random, and its mask with it.

    A larger image is cropped to its old size, a smaller one lies somewhere in it; what surrounds
    it there is ``IGNORED``.

    Args:
        images: (B, 3, S, S) uint8.
        masks: (B, S, S) uint8, on the same device.
        draws: on the CPU, so that the draws are the same on every device.

    Returns:
        (B, 3, S, S) float32 in [0, 255], and masks as they came.
    """
    grid = functional.affine_grid(
        random_windows(len(images), draws).to(images.device), list(images.shape), False
    )
    shown = _seen(images.float() - GREY, grid, "bilinear") + GREY
    # A grid sample is 0 beyond the border, so IGNORED has to be 0 meanwhile.
    classes = _seen(masks[:, None].float() - IGNORED, grid, "nearest") + IGNORED
    return recolour(shown, draws), classes[:, 0].round().to(torch.uint8)


def random_windows(count: int, draws: Generator) -> Tensor:
    """What part of each image is shown, as ``affine_grid`` takes it: (count, 2, 3) float32."""
    scale, across, down, flip = torch.rand((4, count), generator=draws)
    side = SCALE ** (1 - 2 * scale)  # of the window, where the image's is 1
    room = (1 - side).abs()
    windows = torch.zeros((count, 2, 3))
    windows[:, 0, 0] = torch.where(flip < 0.5, -side, side)
    windows[:, 1, 1] = side
    windows[:, 0, 2] = room * (2 * across - 1)
    windows[:, 1, 2] = room * (2 * down - 1)
    return windows


def _seen(maps: Tensor, grid: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(maps, grid, mode=mode, align_corners=False)
