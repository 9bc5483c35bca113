"""Rotated boxes, described so that what upright boxes have stays as it is.

A detector describes a rotated box by the upright box that has the same centre and the same second
moments along both axes, its *spread*, and by one number more, its *tilt*: the inverse hyperbolic
tangent of the correlation of its points' x and y. This is the Gaussian of the box (Yang et al.,
"Rethinking Rotated Object Detection with Gaussian Wasserstein Distance Loss", ICML 2021). It
changes continuously however the box turns, an upright box is its own spread, with a tilt of 0, and
both axes may be scaled, each on its own. At 45°, the tilt is the logarithm of the sides' ratio.
Squares have no tilt in whatever direction they point: they are found upright.

Outside the detector, a rotated box is its hull, the smallest upright box around it, and its *turn*:
where on the hull's upper side its topmost corner is, and where on the hull's right side its
rightmost, as shares of these sides. (0, 0) is an upright box. Turned counterclockwise a little,
both are almost 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

MOST_TILT = 4.0
"""At 45°, a side is 55 times as long as the other."""

SQUARE = 1.1
"""A box whose sides have a smaller ratio has no direction that could be told, and is upright."""


PAIRS_AT_ONCE = 50_000
"""Bounds the memory that their overlaps take, 2 KB per pair."""


def corners_of(hulls: Tensor, turns: Tensor) -> Tensor:
    """The corners of boxes, clockwise from the topmost, (K, 4, 2).

    Args:
        hulls: left, top, right, bottom, (K, 4).
        turns: (K, 2).
    """
    left, top, right, bottom = hulls.unbind(1)
    across, down = (turns * (hulls[:, 2:] - hulls[:, :2])).unbind(1)
    xs = torch.stack((left + across, right, right - across, left), 1)
    ys = torch.stack((top, top + down, bottom, bottom - down), 1)
    return torch.stack((xs, ys), 2)


def hulls_of(corners: Tensor) -> tuple[Tensor, Tensor]:
    """The hulls (K, 4) and turns (K, 2) of boxes, given their corners clockwise, (K, 4, 2)."""
    least, most = corners.amin(1), corners.amax(1)
    topmost = corners[:, :, 1].argmin(1)
    row = torch.arange(len(corners), device=corners.device)
    first, second = corners[row, topmost], corners[row, (topmost + 1) % 4]
    turns = torch.stack((first[:, 0] - least[:, 0], second[:, 1] - least[:, 1]), 1)
    return torch.cat((least, most), 1), (turns / (most - least).clamp(min=1e-9)).clamp(0, 1)


def spreads_of(corners: Tensor) -> tuple[Tensor, Tensor]:
    """The spreads (K, 4) and tilts (K,) of boxes, given their corners in order, (K, 4, 2)."""
    middle = corners.mean(1)
    sides = corners[:, 1:3] - corners[:, 0:2]
    half = sides.square().sum(1).sqrt() / 2
    correlation = sides.prod(2).sum(1) / (4 * half.prod(1)).clamp(min=1e-9)
    tilts = correlation.clamp(-0.99999, 0.99999).atanh().clamp(-MOST_TILT, MOST_TILT)
    return torch.cat((middle - half, middle + half), 1), tilts


def rectangles_of(spreads: Tensor, tilts: Tensor) -> Tensor:
    """The corners of boxes in pixels, clockwise, (K, 4, 2); the inverse of `spreads_of`.

    Args:
        spreads: (K, 4).
        tilts: (K,).
    """
    middle = (spreads[:, :2] + spreads[:, 2:]) / 2
    half = (spreads[:, 2:] - spreads[:, :2]).clamp(min=0) / 2
    across, down = half.square().unbind(1)
    joint = tilts.tanh() * half.prod(1)
    mean, apart = (across + down) / 2, (across - down) / 2
    root = torch.hypot(apart, joint)
    long, short = (mean + root).sqrt(), (mean - root).clamp(min=0).sqrt()
    angle = torch.atan2(joint, apart) / 2
    upright = long < SQUARE * short
    angle = torch.where(upright, 0, angle)
    width = torch.where(upright, half[:, 0], long)
    height = torch.where(upright, half[:, 1], short)
    along = torch.stack((angle.cos(), angle.sin()), 1)
    beside = torch.stack((-angle.sin(), angle.cos()), 1)
    signs = spreads.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    reach = torch.stack((width, height), 1)[:, None] * signs
    return middle[:, None] + reach[..., :1] * along[:, None] + reach[..., 1:] * beside[:, None]


def turned_overlaps(one: Tensor, other: Tensor) -> Tensor:
    """The intersection over union of pairs of boxes, (P,).

    Args:
        one: corners, clockwise, (P, 4, 2).
        other: those of the other boxes, (P, 4, 2).
    """
    one, other = one.double(), other.double()
    crossings, cross = _crossings(one, other)
    points = torch.cat((one, other, crossings), 1)
    shared = torch.cat((_inside(one, other), _inside(other, one), cross), 1)
    count = shared.sum(1)
    middle = (points * shared[..., None]).sum(1) / count.clamp(min=1)[:, None]
    away = points - middle[:, None]
    around = torch.where(shared, torch.atan2(away[..., 1], away[..., 0]), torch.inf)
    order = around.argsort(1)
    ring = away.gather(1, order[..., None].expand_as(away))
    # What is not shared comes last, and is put where the first point is.
    ring = torch.where(shared.gather(1, order)[..., None], ring, ring[:, :1])
    areas = torch.stack((_area(one), _area(other)))
    empty = (count < 3) | (areas.amin(0) < 1e-9)
    common = torch.where(empty, 0, _area(ring))
    return common / (areas.sum(0) - common).clamp(min=1e-9)


def turned_nms(corners: Tensor, labels: Tensor, most: float) -> Tensor:
    """The boxes that are kept by non-maximum suppression within each class, ascending.

    Args:
        corners: of boxes, the most confident first, clockwise, (K, 4, 2).
        labels: (K,).
        most: of two boxes that overlap by more than this, the less confident is dropped.
    """
    hulls = torch.cat((corners.amin(1), corners.amax(1)), 1)
    near = (box_iou(hulls, hulls) > 0) & (labels[:, None] == labels)
    first, second = near.triu(1).nonzero(as_tuple=True)
    pairs = zip(first.split(PAIRS_AT_ONCE), second.split(PAIRS_AT_ONCE), strict=True)
    shared = [turned_overlaps(corners[one], corners[other]) for one, other in pairs]
    clash = torch.cat(shared) > most
    clashes = torch.zeros((len(labels), len(labels)), dtype=torch.bool)
    clashes[first[clash].cpu(), second[clash].cpu()] = True
    kept = torch.ones(len(labels), dtype=torch.bool)
    for row in range(len(labels)):
        if kept[row]:
            kept &= ~clashes[row]
    return kept.nonzero().flatten().to(corners.device)


def _cross(one: Tensor, other: Tensor) -> Tensor:
    return one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]


def _area(ring: Tensor) -> Tensor:
    return _cross(ring, ring.roll(-1, 1)).sum(1).abs() / 2


def _inside(points: Tensor, box: Tensor) -> Tensor:
    """Which corners (P, 4, 2) lie in the other box of the pair, (P, 4) bool."""
    sides = box.roll(-1, 1) - box
    away = points[:, :, None] - box[:, None]
    return (_cross(sides[:, None], away) >= -1e-9).all(2)


def _crossings(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Where the sides of two boxes cross, (P, 16, 2), and which do, (P, 16) bool."""
    start, way = one[:, :, None], (one.roll(-1, 1) - one)[:, :, None]
    begin, course = other[:, None], (other.roll(-1, 1) - other)[:, None]
    slope = _cross(way, course)
    parallel = slope.abs() < 1e-12
    slope = torch.where(parallel, 1, slope)
    along = _cross(begin - start, course) / slope
    beside = _cross(begin - start, way) / slope
    meet = ~parallel & (along >= 0) & (along <= 1) & (beside >= 0) & (beside <= 1)
    return (start + along[..., None] * way).flatten(1, 2), meet.flatten(1)
