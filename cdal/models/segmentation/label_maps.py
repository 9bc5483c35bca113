"""From logits at a network's stride to a class for each pixel of an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def label_map(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The most probable class of each pixel, the first of equals.

    It is what argmax finds in logits interpolated bilinearly (``align_corners=False``), many times
    faster: no map of all classes at the image's size is made, and a class is only looked at in
    the rows in which it can be the highest.

    Args:
        logits: (C, h, w) float32, C at most 255.
        size: H and W.

    Returns:
        (H, W) uint8, on the same device.
    """
    height, width = size
    down = interpolation(logits.shape[1], height, logits.device)
    across = logits @ interpolation(logits.shape[2], width, logits.device).T
    labels = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    highest = torch.full(size, -math.inf, device=logits.device)
    for label, (first, last) in enumerate(_rows_to_look_at(logits)):
        if first > last:
            continue
        # Half a pixel of the logits beyond both ends, which is where the borders' rows are, too.
        rows = slice(
            math.floor(first * height / logits.shape[1]),
            math.ceil((last + 1) * height / logits.shape[1]),
        )
        maps = down[rows] @ across[label]
        # Labels rise, so the largest of those that were the highest so far is the last of them.
        higher = (maps > highest[rows]).view(torch.uint8).mul_(label)
        torch.maximum(labels[rows], higher, out=labels[rows])
        torch.maximum(highest[rows], maps, out=highest[rows])
    return labels


def interpolation(old: int, new: int, device: torch.device) -> Tensor:
    """The matrix that takes ``old`` values to ``new`` ones, linearly between, (new, old)."""
    units = torch.eye(old, device=device)[None]
    return functional.interpolate(units, size=new, mode="linear", align_corners=False)[0].T


def _rows_to_look_at(logits: Tensor) -> list[tuple[int, int]]:
    """The first and the last row of logits around which each class can be the highest.

    Between four logits, an interpolated class is nowhere above the highest of its four, and the
    highest class nowhere below the lowest four of any class. Only classes whose highest reaches
    the best of these lowest count there.
    """
    corners = (min(2, logits.shape[1]), min(2, logits.shape[2]))
    lowest = -functional.max_pool2d(-logits[None], corners, stride=1)
    highest = functional.max_pool2d(logits[None], corners, stride=1)
    possible = (highest >= lowest.amax(1, keepdim=True))[0].any(2).cpu()
    rows = [row.nonzero().flatten().tolist() for row in possible]
    return [(found[0], found[-1] + corners[0] - 1) if found else (0, -1) for found in rows]
