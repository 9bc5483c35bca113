"""Random changes of training images for segmentation: masks change with their images."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

from cdal.models.augment import recolour
from cdal.models.predictions import IGNORED

SCALE = 2.0
"""An image is enlarged or reduced by at most this factor, log-uniformly."""

GREY = 114.0
"""The value of pixels beyond the image's border, about the mean of photographs."""


def augment_masks(images: Tensor, masks: Tensor, draws: Generator) -> tuple[Tensor, Tensor]:
    """Randomly scale, crop, flip and recolour each image, and its mask accordingly.

    An enlarged image is cropped to its original size. A reduced image is placed at random, and the
    pixels around it are ``IGNORED``.

    Args:
        images: (B, 3, S, S) uint8.
        masks: (B, S, S) uint8, on the same device.
        draws: a CPU generator, so that the draws are the same on every device.

    Returns:
        Images (B, 3, S, S) float32 in [0, 255], and masks (B, S, S) uint8.
    """
    images, maps = _augment_maps(images, masks[:, None], (IGNORED,), draws)
    return images, maps[:, 0].to(torch.uint8)


def augment_objects(images: Tensor, targets: Tensor, draws: Generator) -> tuple[Tensor, Tensor]:
    """As ``augment_masks``, with targets that also number the objects, (B, 2, S, S) int16."""
    images, maps = _augment_maps(images, targets, (IGNORED, 0), draws)
    return images, maps.to(torch.int16)


def _augment_maps(
    images: Tensor, maps: Tensor, beyond: tuple[int, ...], draws: Generator
) -> tuple[Tensor, Tensor]:
    """Change images and their maps (B, L, S, S), whose values beyond the border are given."""
    grid = functional.affine_grid(
        random_windows(len(images), draws).to(images.device), list(images.shape), False
    )
    shown = _sample(images.float() - GREY, grid, "bilinear") + GREY
    # grid_sample returns 0 beyond the border, so these values have to be 0 for the moment.
    empty = torch.tensor(beyond, dtype=torch.float32, device=images.device).view(1, -1, 1, 1)
    moved = _sample(maps.float() - empty, grid, "nearest") + empty
    return recolour(shown, draws), moved.round()


def random_windows(count: int, draws: Generator) -> Tensor:
    """The part of each image to show, as matrices for ``affine_grid``, (count, 2, 3) float32."""
    scale, across, down, flip = torch.rand((4, count), generator=draws)
    side = SCALE ** (1 - 2 * scale)  # of the window, relative to the image
    room = (1 - side).abs()
    windows = torch.zeros((count, 2, 3))
    windows[:, 0, 0] = torch.where(flip < 0.5, -side, side)
    windows[:, 1, 1] = side
    windows[:, 0, 2] = room * (2 * across - 1)
    windows[:, 1, 2] = room * (2 * down - 1)
    return windows


def _sample(maps: Tensor, grid: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(maps, grid, mode=mode, align_corners=False)
