"""Images in a square with their aspect ratio kept: at its top left, with padding beside or below.

Where an image ends is read from the square itself: padding is 0, and the image is at least 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

GRID = 32
"""Padding that a backbone sees ends at a multiple of this, the coarsest stride."""


def content_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns that an image takes in a square of this side."""
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def letterbox(image: Tensor, side: int) -> Tensor:
    """An image, (3, H, W) uint8, in a square: (3, side, side) uint8."""
    rows, columns = content_size(image.shape[1], image.shape[2], side)
    square = image.new_zeros((3, side, side))
    resized: Tensor = transforms.resize(image, [rows, columns], antialias=True)
    square[:, :rows, :columns] = resized.clamp(min=1)
    return square


def contents(batch: Tensor) -> list[tuple[int, int]]:
    """Rows and columns that the images of a batch, (B, 3, S, S) uint8, take in their squares."""
    side = batch.shape[-1]
    rows = (batch[:, 0, :, 0] > 0).sum(1).tolist()
    columns = (batch[:, 0, 0, :] > 0).sum(1).tolist()
    return [(r or side, c or side) for r, c in zip(rows, columns, strict=True)]


def on_grid(content: tuple[int, int]) -> tuple[int, int]:
    """The rows and columns that a backbone is shown of an image."""
    return GRID * ceil(content[0] / GRID), GRID * ceil(content[1] / GRID)


def padded(maps: Sequence[Tensor]) -> Tensor:
    """Tensors (..., h, w) of several sizes as one (B, ..., H, W), padded below and to the right."""
    height, width = (max(each.shape[axis] for each in maps) for axis in (-2, -1))
    sized = [
        functional.pad(each, (0, width - each.shape[-1], 0, height - each.shape[-2]))
        for each in maps
    ]
    return torch.stack(sized)
