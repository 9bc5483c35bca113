"""Rotated boxes: their descriptions, overlaps and non-maximum suppression."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cdal.models.detection.turned import (
    corners_of,
    hulls_of,
    rectangles_of,
    spreads_of,
    turned_nms,
    turned_overlaps,
)


def rotated(x: float, y: float, width: float, height: float, degrees: float) -> Tensor:
    """The corners of a box, turned clockwise about its centre, (1, 4, 2)."""
    angle = math.radians(degrees)
    along = torch.tensor([math.cos(angle), math.sin(angle)]) * width / 2
    beside = torch.tensor([-math.sin(angle), math.cos(angle)]) * height / 2
    ends = (-along - beside, along - beside, along + beside, beside - along)
    return (torch.stack(ends) + torch.tensor([x, y]))[None]


def same(one: Tensor, other: Tensor) -> bool:
    return bool((turned_overlaps(one, other) > 0.9999).all())


def test_upright_boxes_stay_as_they_are() -> None:
    box = torch.tensor([[10.0, 20, 50, 90]])
    upright = corners_of(box, torch.zeros(1, 2))
    assert upright.tolist() == [[[10, 20], [50, 20], [50, 90], [10, 90]]]
    spreads, tilts = spreads_of(upright)
    torch.testing.assert_close(spreads, box)
    assert tilts.tolist() == [0]
    torch.testing.assert_close(hulls_of(rectangles_of(box, tilts))[0], box)


@pytest.mark.parametrize("degrees", [0, 1, 20, 45, 60, 89, 90, 100, 135, 179, 200, 340])
@pytest.mark.parametrize("height", [8.0, 30.0])
def test_a_box_comes_back_from_either_description(degrees: float, height: float) -> None:
    box = rotated(100, 80, 40, height, degrees)
    assert same(corners_of(*hulls_of(box)), box)
    assert same(rectangles_of(*spreads_of(box)), box)


def test_the_tilt_at_45_degrees_is_the_logarithm_of_the_ratio_of_the_sides() -> None:
    for degrees, sign in ((45, 1), (-45, -1), (135, -1)):
        _, tilts = spreads_of(rotated(0, 0, 30, 10, degrees))
        assert float(tilts) == pytest.approx(sign * math.log(3), rel=1e-4)


def test_a_diamond_fills_half_of_its_hull() -> None:
    hulls, turns = hulls_of(rotated(50, 50, 40 * math.sqrt(2), 40 * math.sqrt(2), 45))
    torch.testing.assert_close(hulls, torch.tensor([[10.0, 10, 90, 90]]))
    torch.testing.assert_close(turns, torch.tensor([[0.5, 0.5]]))
    # A square has no direction: what remains is the upright one.
    square = rectangles_of(*spreads_of(corners_of(hulls, turns)))
    assert same(square, rotated(50, 50, 40 * math.sqrt(2), 40 * math.sqrt(2), 0))


def test_both_axes_may_be_scaled() -> None:
    """So a description as shares of an image holds at every size."""
    box, scale = rotated(100, 80, 40, 10, 30), torch.tensor([0.25, 0.5])
    hulls, turns = hulls_of(box)
    smaller, unchanged = hulls_of(box * scale)
    torch.testing.assert_close(unchanged, turns)
    torch.testing.assert_close(smaller, hulls * scale.repeat(2))
    assert spreads_of(box * scale)[1] == pytest.approx(float(spreads_of(box)[1]), rel=1e-4)


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        (rotated(0, 0, 10, 10, 0), rotated(5, 0, 10, 10, 0), 1 / 3),
        (rotated(0, 0, 10, 10, 30), rotated(0, 0, 10, 10, 30), 1),
        (rotated(0, 0, 10, 10, 0), rotated(0, 0, 10, 10, 90), 1),
        (rotated(0, 0, 30, 10, 0), rotated(0, 0, 30, 10, 90), 100 / 500),
        (rotated(0, 0, 10, 10, 0), rotated(20, 0, 10, 10, 45), 0),
        # An octagon: each corner that is cut off has the sides (10 - 5√2) √2.
        (rotated(0, 0, 10, 10, 0), rotated(0, 0, 10, 10, 45), 1 / math.sqrt(2)),
        (rotated(0, 0, 40, 40, 0), rotated(0, 0, 10, 10, 45), 1 / 16),
        (rotated(0, 0, 0, 0, 0), rotated(0, 0, 10, 10, 45), 0),
    ],
)
def test_overlaps(one: Tensor, other: Tensor, share: float) -> None:
    for a, b in ((one, other), (other, one)):
        assert float(turned_overlaps(a, b)) == pytest.approx(share, abs=1e-6)


def test_neighbours_whose_hulls_overlap_are_kept() -> None:
    """Three bars side by side, all at 45°, of which the second is found twice."""
    bars = [rotated(50 + 8 * n, 50 - 8 * n, 60, 10, 45) for n in range(3)]
    boxes = torch.cat([*bars, rotated(59, 43, 60, 10, 44)])
    assert turned_nms(boxes, torch.zeros(4, dtype=torch.int64), 0.5).tolist() == [0, 1, 2]
    assert turned_nms(boxes, torch.tensor([0, 0, 0, 1]), 0.5).tolist() == [0, 1, 2, 3]
    assert turned_nms(boxes[:0], torch.zeros(0, dtype=torch.int64), 0.5).tolist() == []
