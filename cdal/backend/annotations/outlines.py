"""Outlines of masks as polygons with few points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

import cv2
import numpy as np
import numpy.typing as npt

from cdal.backend.annotations.masks import Mask
from cdal.backend.annotations.parts import Part

Ring = npt.NDArray[np.int32]
"""A contour as OpenCV gives it, x and y in half pixels, (N, 1, 2)."""

Points = npt.NDArray[np.float64]
"""x and y in pixels, (N, 2)."""

LEAST_POINTS = 3

FINEST = 0.35
"""Pixels; a line through the middles of pixel edges can move this far without passing a centre."""

THICKNESS = 50.0
"""At a tolerance of one pixel, a line may move by the outlined area's thickness (area by perimeter)
divided by this, since a pixel matters more in a thin area; the IoU stays above 0.99."""


def outlines_of(
    parts: Sequence[Part], size: tuple[int, ...], tolerance: float
) -> Iterator[tuple[Part, Points]]:
    """An outline for each part, in the order in which they are to be drawn.

    A part in a hole of another comes after it and covers it there. So a hole is left open only
    where some pixel in it belongs to no part; then a bridge of no width leads to it.

    Args:
        parts: of one label map, 4-connected: none reaches into another's hole from outside.
        size: height and width of the label map.
        tolerance: by how many pixels a line may be moved.
    """
    bare = np.ones(size, np.uint8)
    for part in parts:
        bare[part.window] &= 1 - part.mask
    outlined = [(part, *_rings(part.mask)) for part in parts]
    outlined.sort(key=lambda item: -cv2.contourArea(item[1]))
    for part, outer, holes in outlined:
        rings = [outer, *_bare_holes(part.mask, holes, bare[part.window])]
        line = _bridge([_simplify(ring, part.area, tolerance) for ring in rings])
        yield part, line + np.array([part.left, part.top])


def _rings(mask: Mask) -> tuple[Ring, list[Ring]]:
    """The outline of a connected mask and those of its holes, in half pixels, along the edges."""
    height, width = mask.shape
    doubled = np.zeros((2 * height + 1, 2 * width + 1), np.uint8)
    doubled[:-1, :-1] = cv2.resize(mask, (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST)
    # Contours go through the centres of pixels: a pixel must reach to both of its edges.
    reaching = cv2.dilate(doubled, np.ones((2, 2), np.uint8), anchor=(1, 1))
    rings, hierarchy = cv2.findContours(reaching, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    sharp = [_with_corners(ring.astype(np.int32, copy=False)) for ring in rings]
    is_hole = hierarchy[0, :, 3] >= 0
    holes = [ring for ring, hole in zip(sharp, is_hole, strict=True) if hole]
    return sharp[int(is_hole.argmin())], holes


def _with_corners(ring: Ring) -> Ring:
    """OpenCV goes diagonally past inner corners; here each is a point, in whole pixels as all."""
    after = np.concatenate((ring[1:], ring[:1]))
    cut = np.abs(after - ring).max(axis=2) == np.abs(after - ring).min(axis=2)
    odd = ring % 2
    corners: Ring = np.where(odd & cut[:, :, None], after, ring)
    kept = (cut | ~odd.any(axis=2))[:, 0]
    return corners.compress(kept, axis=0)


def _bare_holes(mask: Mask, holes: Sequence[Ring], bare: Mask) -> list[Ring]:
    """The holes that have a bare pixel; what lies in the others is drawn over them."""
    if not holes or not bare.any():
        return []
    count, numbers = cv2.connectedComponents(1 - mask, connectivity=4)
    is_bare = np.zeros(count, np.bool_)
    is_bare[numbers[bare > 0]] = True
    return [hole for hole in holes if is_bare[numbers[_pixel_in(hole)]]]


def _pixel_in(hole: Ring) -> tuple[int, int]:
    """Row and column of the leftmost pixel in the topmost row of a hole."""
    first = np.lexsort(hole[:, 0].T)[0]
    x, y = hole[first, 0]
    return int(y) // 2, int(x) // 2


def _simplify(ring: Ring, part_area: float, tolerance: float) -> Points:
    """A ring of fewer points, in pixels."""
    smooth = _through_edges(ring)
    area = min(part_area, cv2.contourArea(smooth))
    thickness = area / cv2.arcLength(smooth, closed=True)
    allowed = min(tolerance, max(FINEST, tolerance * thickness / THICKNESS))
    simple = cv2.approxPolyDP(smooth, allowed, closed=True)
    kept = simple if len(simple) >= LEAST_POINTS else smooth
    points: Points = kept[:, 0].astype(np.float64)
    return points


def _through_edges(ring: Ring) -> npt.NDArray[np.float32]:
    """A ring without the steps of its pixels, in pixels: through the middles of their edges.

    It encloses the same centres: where it cuts a corner, it stays outside the pixel's middle. A
    corner between two edges of more than a pixel is no step, and stays.
    """
    corners = ring[:, 0] / 2
    way = np.roll(corners, -1, axis=0) - corners
    length = np.abs(way).max(axis=1, keepdims=True)
    before, after = np.roll(way, 1, axis=0), way
    is_step = (length == 1) | (np.roll(length, 1, axis=0) == 1)
    cut = np.where(is_step, 0.5, 0.0)
    ends = np.stack(
        (corners - cut * np.sign(before), corners + cut * np.sign(after)), axis=1
    ).reshape(-1, 1, 2)
    line: npt.NDArray[np.float32] = ends.astype(np.float32)
    return line


def _bridge(rings: Sequence[Points]) -> Points:
    """One line around an outline and its holes: to each hole and back over the same bridge.

    Bridges may cross other holes: going there and back they enclose nothing.
    """
    outer, *holes = rings
    offsets = [outer - hole[0] for hole in holes]
    starts = [int(np.einsum("ij,ij->i", offset, offset).argmin()) for offset in offsets]
    pieces: list[Points] = []
    done = 0
    for start, hole in sorted(zip(starts, holes, strict=True), key=itemgetter(0)):
        pieces += [outer[done : start + 1], hole, hole[:1]]
        done = start
    return np.concatenate([*pieces, outer[done:]])
