"""Random changes of training images that preserve their class.

torchvision's transforms draw one set of parameters per batch, from the process's generator. Here
each image has its own, drawn from a given generator, at the cost of one gather per batch.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

SHIFT = 1 / 8
"""The largest shift, as a share of the side; the gap is filled by mirroring the image."""

COLOUR = 0.2
"""The largest relative change of brightness, contrast and saturation."""

LUMA = (0.299, 0.587, 0.114)


def augment(images: Tensor, generator: Generator) -> Tensor:
    """Shift, flip and recolour each image at random.

    Args:
        images: (B, 3, S, S) uint8.
        generator: a CPU generator, so that the draws are the same on every device.

    Returns:
        (B, 3, S, S) float32 in [0, 255].
    """
    return recolour(shift_and_flip(images, generator).float(), generator)


def shift_and_flip(images: Tensor, generator: Generator) -> Tensor:
    """Shift each image by up to ``SHIFT`` in both directions and mirror half of them.

    Args:
        images: (B, C, S, S) of any type.
        generator: a CPU generator.
    """
    count, channels, size, _ = images.shape
    reach = round(size * SHIFT)
    shifts = torch.randint(-reach, reach + 1, (2, count, 1), generator=generator)
    flips = torch.rand((count, 1), generator=generator) < 0.5
    rows, columns = _mirrored(torch.arange(size) + shifts, size)
    columns = torch.where(flips, size - 1 - columns, columns)
    device = images.device
    return images[
        torch.arange(count, device=device).view(-1, 1, 1, 1),
        torch.arange(channels, device=device).view(1, -1, 1, 1),
        rows.to(device).view(count, 1, size, 1),
        columns.to(device).view(count, 1, 1, size),
    ]


def recolour(images: Tensor, generator: Generator) -> Tensor:
    """Change brightness, contrast and saturation of (B, 3, S, S) float32 images in [0, 255]."""
    factors = 1 + COLOUR * (2 * torch.rand((3, len(images)), generator=generator) - 1)
    brightness, contrast, saturation = factors.to(images.device).view(3, -1, 1, 1, 1)
    grey = (images * images.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    images = grey + saturation * (images - grey)
    mean = grey.mean((2, 3), keepdim=True)
    recoloured: Tensor = brightness * mean + contrast * (images - mean)
    return recoloured.clamp(0, 255)


def _mirrored(positions: Tensor, size: int) -> Tensor:
    """Reflect positions outside [0, size) at the border, without repeating the border."""
    last = size - 1
    return last - (last - positions.abs()).abs()
