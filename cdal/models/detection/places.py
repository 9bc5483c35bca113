"""The places at which an anchor-free detector looks for objects, after FCOS (Tian et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

STRIDES = (8, 16, 32)
"""The strides of the levels, in pixels of the prepared image."""

LIMITS = (128.0, 256.0, float("inf"))
"""The largest box that each level looks for: the root of its area in pixels."""

RADIUS = 1.5
CENTRAL = 0.5
"""A place within a box should find it if it is at most ``RADIUS`` strides from its centre, or in
its central part, whose sides are this share of the box's."""

MOST_PLACES = 9
"""The places of a box together count as at most this many, so that small boxes, which have about
as many, are not outweighed by large ones."""

MOST_DISTANCE = 6.0
"""The largest logarithm of a distance in strides: early in training, more would overflow."""


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """The A places of all levels, row by row, from the finest level to the coarsest.

    Attributes:
        centres: x and y in pixels of the prepared image, (A, 2) float32.
        strides: (A,) float32.
        limits: the smallest and the largest box that each looks for, (A, 2) float32.
    """

    centres: Tensor
    strides: Tensor
    limits: Tensor

    @classmethod
    def of(cls, size: tuple[int, int], device: torch.device) -> Self:
        """The places of all levels, given the rows and columns of the finest map."""
        centres, strides, limits = [], [], []
        least = 0.0
        rows, columns = size
        for stride, most in zip(STRIDES, LIMITS, strict=True):
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            level = (torch.stack([x, y], -1).flatten(0, 1) + 0.5) * stride
            centres.append(level)
            strides.append(torch.full_like(level[:, 0], stride))
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

    def boxes(self, distances: Tensor) -> Tensor:
        """The boxes that places find, (..., A, 4).

        Args:
            distances: the logarithms of a place's distances, in strides, to the left, top, right
                and bottom of its box, (..., A, 4).
        """
        pixels = distances.clamp(max=MOST_DISTANCE).exp() * self.strides[:, None]
        return torch.cat([self.centres - pixels[..., :2], self.centres + pixels[..., 2:]], -1)


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """What each of A places should find.

    Attributes:
        classes: 1 for the class of the place's box, otherwise 0, (A, C) float32.
        boxes: the place's box, (A, 4) float32, which means nothing for a place without one.
        tilts: its tilt, (A,) float32, 0 unless boxes are rotated.
        weights: how much the place counts in the loss, (A,) float32: 1 without a box.
    """

    classes: Tensor
    boxes: Tensor
    tilts: Tensor
    weights: Tensor


def assigned(places: Places, target: Tensor, classes: int) -> Assignment:
    """What each place should find.

    A place near the centres of several boxes should find the smallest. The place next to a box's
    centre should find it in any case, however small the box is.

    Args:
        places: A places.
        target: rows of left, top, right, bottom and class, (M, 5), or of rotated boxes, (M, 6).
        classes: C.
    """
    found = places.centres.new_zeros((len(places.centres), classes))
    weights = torch.ones_like(places.strides)
    if len(target) == 0:
        none = places.centres.new_zeros((len(places.centres), 4))
        return Assignment(found, none, none[:, 0], weights)
    boxes, labels = target[:, :4], target[:, 4].long()
    lengths = boxes[:, 2:] - boxes[:, :2]
    areas = lengths.prod(1)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    away = (places.centres[:, None] - middle[None]).abs()
    reach = torch.maximum(RADIUS * places.strides[:, None, None], CENTRAL * lengths / 2)
    near = (away <= torch.minimum(reach, lengths / 2)).all(2)
    near |= (away <= places.strides[:, None, None] / 2).all(2)
    root = areas.sqrt()
    least, most = places.limits[:, :1], places.limits[:, 1:]
    near &= (root >= least) & (root < most)
    smallest, which = torch.where(near, areas, torch.inf).min(1)
    shown = smallest.isfinite()
    own = which[shown]
    found[shown.nonzero().flatten(), labels[own]] = 1
    weights[shown] = (MOST_PLACES / own.bincount(minlength=len(target))[own]).clamp(max=1)
    tilts = target[:, 5] if target.shape[1] > 5 else torch.zeros_like(areas)
    return Assignment(found, boxes[which], tilts[which], weights)
