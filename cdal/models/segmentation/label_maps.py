"""Label maps: the class of each pixel, from logits at a network's stride."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def label_map(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """The most probable class of each pixel; of equal classes the first.

    The result is the argmax of bilinearly interpolated logits (``align_corners=False``), but many
    times faster: there is no map of all classes at full size, and each class is evaluated only in
    the rows where it can be the highest.

    Args:
        logits: (C, h, w) float32; C is at most 255.
        size: H and W.

    Returns:
        (H, W) uint8, on the same device.
    """
    height, width = size
    down = interpolation(logits.shape[1], height, logits.device)
    across = logits @ interpolation(logits.shape[2], width, logits.device).T
    labels = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    highest = torch.full(size, -math.inf, device=logits.device)
    for label, (first, last) in enumerate(_candidate_rows(logits)):
        if first > last:
            continue
        # Half a row of logits beyond both ends, which includes the rows at the borders.
        rows = slice(
            math.floor(first * height / logits.shape[1]),
            math.ceil((last + 1) * height / logits.shape[1]),
        )
        maps = down[rows] @ across[label]
        # Labels ascend, so the maximum is the last label that set a new highest value.
        higher = (maps > highest[rows]).view(torch.uint8).mul_(label)
        torch.maximum(labels[rows], higher, out=labels[rows])
        torch.maximum(highest[rows], maps, out=highest[rows])
    return labels


def interpolation(old: int, new: int, device: torch.device) -> Tensor:
    """The matrix (new, old) that interpolates ``old`` values linearly to ``new`` ones."""
    units = torch.eye(old, device=device)[None]
    return functional.interpolate(units, size=new, mode="linear", align_corners=False)[0].T


def _candidate_rows(logits: Tensor) -> list[tuple[int, int]]:
    """The first and last row of logits near which each class can be the highest.

    Within a cell of four neighbouring logits, the interpolated value of a class lies between the
    minimum and the maximum of its four logits. So a class can only be the highest in a cell where
    its maximum reaches the largest of all classes' minima.
    """
    corners = (min(2, logits.shape[1]), min(2, logits.shape[2]))
    lowest = -functional.max_pool2d(-logits[None], corners, stride=1)
    highest = functional.max_pool2d(logits[None], corners, stride=1)
    possible = (highest >= lowest.amax(1, keepdim=True))[0].any(2).cpu()
    rows = [row.nonzero().flatten().tolist() for row in possible]
    return [(found[0], found[-1] + corners[0] - 1) if found else (0, -1) for found in rows]
