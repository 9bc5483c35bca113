"""Rectangular inputs for segmentation: images keep their aspect ratio."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cdal.models import IGNORED

STRIDE = 32
"""The sides are multiples of this, the coarsest stride of a network."""


def shape_for(sizes: Sequence[tuple[int, int]], longer: int) -> tuple[int, int]:
    """Rows and columns of the network's input.

    Args:
        sizes: height and width of some images; their median aspect ratio counts.
        longer: about the longer side.
    """
    aspect = median(height / width for height, width in sizes)
    rows, columns = (longer, longer / aspect) if aspect > 1 else (longer * aspect, longer)
    return _rounded(rows), _rounded(columns)


def fitted(image: Tensor, mask: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """An image and its mask, resized to lie in the top left of this shape.

    They are stretched by less than half a stride to fill it. An image of another aspect ratio
    leaves a border, which is black and ``IGNORED``.

    Args:
        image: (3, H, W) uint8.
        mask: (H, W) uint8.
        shape: rows and columns.
    """
    height, width = mask.shape
    scale = min(shape[0] / height, shape[1] / width)
    size = [
        full if full - side * scale < STRIDE / 2 else max(1, round(side * scale))
        for side, full in zip((height, width), shape, strict=True)
    ]
    small = transforms.resize(image, size, antialias=True)
    classes = transforms.resize(mask[None], size, InterpolationMode.NEAREST_EXACT)[0]
    if tuple(size) == shape:
        return small, classes
    pixels = image.new_zeros((3, *shape))
    labels = mask.new_full(shape, IGNORED)
    pixels[:, : size[0], : size[1]] = small
    labels[: size[0], : size[1]] = classes
    return pixels, labels


def _rounded(side: float) -> int:
    return max(STRIDE, STRIDE * round(side / STRIDE))
