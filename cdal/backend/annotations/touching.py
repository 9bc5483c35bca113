"""Telling touching objects of a class apart in its mask.

Two objects that touch are joined by a neck: where they meet, they are narrower than either is in
its middle. So each pixel goes to the middle that it comes to by stepping away from the mask's edge
(a watershed of the distance transform), and of the pieces that arise, two stay apart if the neck
between them is narrow enough.

It cannot see what a mask does not show: objects that overlap broadly stay one, and an object with a
neck of its own, as an hourglass has, becomes two.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cdal.backend.annotations.masks import Mask

NECK = 0.75
"""Two pieces stay apart if their neck is narrower than this share of the narrower piece's width,
each measured where it is widest (see `measurements/instances.py`)."""

Numbers = npt.NDArray[np.int32]
Depths = npt.NDArray[np.float32]


def objects_in(mask: Mask, smallest: float) -> list[Mask]:
    """The objects in a mask, which together cover it; each is 4-connected.

    Args:
        mask: 4-connected, (H, W).
        smallest: pixels; no object becomes smaller than this.
    """
    found = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    depths: Depths = found.astype(np.float32, copy=False)
    pieces, count = _pieces(depths)
    owner = _owners(pieces, depths, count, smallest)
    owned = owner[pieces][1:-1, 1:-1]
    return [(owned == number).view(np.uint8) for number in np.unique(owner[1:]).tolist()]


def _pieces(depths: Depths) -> tuple[Numbers, int]:
    """The middle that each pixel comes to by always stepping deeper: their numbers, how many.

    Number 0, of the pixels outside, counts.

    Args:
        depths: of each pixel, how far it is from the edge of the mask, which has a margin.
    """
    width = depths.shape[1]
    around = np.stack([np.roll(depths, -step) for step in (1, width, -1, -width)])
    deepest = around.max(0)
    middles = (depths >= deepest) & (depths > 0)
    count, numbers = cv2.connectedComponents(
        middles.view(np.uint8), connectivity=4, ltype=cv2.CV_32S
    )
    climbing = (deepest > depths) & (depths > 0)
    step = np.array([1, width, -1, -width])[around.argmax(0)]
    towards = np.arange(depths.size) + np.where(climbing, step, 0).ravel()
    while True:
        further = towards[towards]
        if (further == towards).all():
            return numbers.ravel()[towards].reshape(depths.shape), count
        towards = further


def _owners(pieces: Numbers, depths: Depths, count: int, smallest: float) -> Numbers:
    """The number of each piece after those without a neck between them are joined.

    Args:
        pieces: the number of each pixel's piece; 0 outside.
        depths: of each pixel, how far it is from the edge.
        count: the numbers of pieces, with 0.
        smallest: see `objects_in`.
    """
    flat = pieces.ravel()
    widths = np.zeros(count, np.float32)
    np.maximum.at(widths, flat, depths.ravel())
    areas = np.bincount(flat, minlength=count)
    owner = np.arange(count, dtype=np.int32)
    for neck, one, other in _necks(pieces, depths, count):
        first, second = sorted((_root(owner, one), _root(owner, other)))
        narrow = neck < NECK * min(widths[first], widths[second])
        if first != second and not (narrow and min(areas[first], areas[second]) >= smallest):
            owner[second] = first
            widths[first] = max(widths[first], widths[second])
            areas[first] += areas[second]
    return np.array([_root(owner, number) for number in range(count)], np.int32)


def _necks(pieces: Numbers, depths: Depths, count: int) -> list[tuple[float, int, int]]:
    """The depth at which two neighbouring pieces meet, and both, the widest neck first."""
    pairs: list[npt.NDArray[np.int64]] = []
    levels: list[npt.NDArray[np.float32]] = []
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        one, other = pieces[here].astype(np.int64), pieces[there].astype(np.int64)
        meet = (one != other) & (one > 0) & (other > 0)
        one, other = one[meet], other[meet]
        pairs.append(np.minimum(one, other) * count + np.maximum(one, other))
        levels.append(np.minimum(depths[here], depths[there])[meet])
    keys, index = np.unique(np.concatenate(pairs), return_inverse=True)
    widest = np.zeros(len(keys), np.float32)
    np.maximum.at(widest, index, np.concatenate(levels))
    order = np.argsort(-widest, kind="stable")
    return [
        (float(widest[at]), int(keys[at]) // count, int(keys[at]) % count) for at in order.tolist()
    ]


def _root(owner: Numbers, number: int) -> int:
    while owner[number] != number:
        number = int(owner[number])
    return number
