"""The places at which an anchor-free detector looks for objects, after FCOS (Tian et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

STRIDES = (8, 16, 32)
"""Of the levels, in pixels of the prepared image."""

LIMITS = (128.0, 256.0, float("inf"))
"""The largest box that each level looks for, by the root of its area in pixels."""

RADIUS = 1.5
"""A place is one of a box where it is at most so many strides from its centre, and inside."""

LEAST_DISTANCE = 0.1
"""In strides, of a place from a side of its box: the logarithm of less would be no use."""


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """A places of all levels, row by row, from the finest level to the coarsest.

    Attributes:
        centres: x and y in pixels of the prepared image, (A, 2) float32.
        strides: (A,) float32.
        limits: the least and the largest box that each looks for, (A, 2) float32.
    """

    centres: Tensor
    strides: Tensor
    limits: Tensor

    @classmethod
    def of(cls, size: tuple[int, int], device: torch.device) -> Self:
        """The places of maps of which the finest has this many rows and columns."""
        centres, strides, limits = [], [], []
        least = 0.0
        rows, columns = size
        for stride, most in zip(STRIDES, LIMITS, strict=True):
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            level = (torch.stack([x, y], -1).flatten(0, 1) + 0.5) * stride
            centres.append(level)
            strides.append(torch.full((len(level),), float(stride)))
            limits.append(torch.tensor([least, most]).expand(len(level), 2))
            least = most
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
        return cls(
            torch.cat(centres).to(device),
            torch.cat(strides).to(device),
            torch.cat(limits).to(device),
        )

    def inside(self, content: tuple[int, int], left: int = 0) -> Tensor:
        """Which places lie in an image and not in its padding, (A,) bool.

        Args:
            content: the rows and columns of the image.
            left: the first of its columns.
        """
        x, y = self.centres.unbind(1)
        return (x >= left) & (x < left + content[1]) & (y < content[0])

    def boxes(self, distances: Tensor, content: tuple[int, int]) -> Tensor:
        """Boxes of the places of an image, cut off at its borders, (A, 4).

        Args:
            distances: logarithms of the distances in strides to left, top, right, bottom, (A, 4).
            content: rows and columns of the prepared image that show the image.
        """
        pixels = distances.clamp(max=6).exp() * self.strides[:, None]
        corners = torch.cat([self.centres - pixels[:, :2], self.centres + pixels[:, 2:]], 1)
        limits = corners.new_tensor([content[1], content[0]] * 2)
        return corners.clamp(min=0).minimum(limits)


def assigned(places: Places, target: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """What each place is to find.

    A place near the centres of several boxes finds the smallest. The place next to a box's centre
    is one of the box in any case, however small the box is.

    Args:
        places: A of them.
        target: rows of left, top, right, bottom and class, (M, 5).
        classes: C.

    Returns:
        1 for the class of the place's box, else 0, (A, C) float32; and the logarithms of its
        distances in strides, (A, 4) float32.
    """
    found = places.centres.new_zeros((len(places.centres), classes))
    sides = places.centres.new_zeros((len(places.centres), 4))
    if len(target) == 0:
        return found, sides
    boxes, labels = target[:, :4], target[:, 4].long()
    lengths = boxes[:, 2:] - boxes[:, :2]
    areas = lengths.prod(1)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    away = (places.centres[:, None] - middle[None]).abs()
    near = (away <= torch.minimum(RADIUS * places.strides[:, None, None], lengths / 2)).all(2)
    near |= (away <= places.strides[:, None, None] / 2).all(2)
    root = areas.sqrt()
    least, most = places.limits[:, :1], places.limits[:, 1:]
    near &= (root >= least) & (root < most)
    cost = torch.where(near, areas, torch.inf)
    smallest, which = cost.min(1)
    shown = smallest.isfinite()
    box = boxes[which[shown]]
    centres, strides = places.centres[shown], places.strides[shown, None]
    distances = torch.cat([centres - box[:, :2], box[:, 2:] - centres], 1) / strides
    sides[shown] = distances.clamp(min=LEAST_DISTANCE).log()
    found[shown.nonzero().flatten(), labels[which[shown]]] = 1
    return found, sides
