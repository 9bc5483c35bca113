"""k-center with outliers (Charikar et al., SODA 2001): a few images may stay far from all picks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MOST = 4_000
"""Of a larger pool, as many images as this, drawn at random, are looked at pair by pair."""
REACH = 3
"""A pick covers what lies within so many radii: what makes the greedy cover a 3-approximation."""
HALVINGS = 14
"""Steps of the search for the radius."""


@dataclass(frozen=True, slots=True)
class RobustCenters:
    """The picks of k-center with outliers.

    Attributes:
        picks: places among the candidates, in the order in which they were picked.
        covers: how many images each covered first.
        radius: the radius of the balls.
        outliers: images farther than ``REACH`` radii from every pick and labelled image.
    """

    picks: list[int]
    covers: list[int]
    radius: float
    outliers: int


def robust_k_center(
    points: Tensor, labelled: Tensor, budget: int, share: float, greedy_radius: float, seed: int
) -> RobustCenters:
    """Pick up to ``budget`` images whose balls cover all but a share of the images.

    The radius is the smallest, by bisection below the greedy solution's, with which that many balls
    suffice. The next ball is the one that holds most images that are not covered yet; a pick, like
    a labelled image, covers what is within ``REACH`` radii.

    Args:
        points: of the candidates, (N, D) float32.
        labelled: points of the labelled images, (L, D) float32.
        budget: from 1 to N.
        share: of the images that may be outliers, in [0, 1).
        greedy_radius: the largest distance of an image to its centre in the greedy solution.
        seed: of the sample that is looked at, if there are more than ``MOST`` images.
    """
    drawn = np.sort(np.random.default_rng(seed).permutation(len(points))[:MOST])
    rows = torch.from_numpy(drawn).to(points.device)
    sample = points[rows]
    distance = torch.cdist(sample, sample)
    to_labelled = (
        torch.cdist(sample, labelled).min(1).values
        if len(labelled)
        else torch.full_like(distance[0], torch.inf)
    )
    spared = int(share * len(sample))
    low, high = 0.0, greedy_radius
    found = _cover(distance, to_labelled, budget, high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tried = _cover(distance, to_labelled, budget, middle)
        if tried.outliers <= spared:
            found, high = tried, middle
        else:
            low = middle
    return RobustCenters(
        rows[torch.tensor(found.picks, dtype=torch.int64, device=rows.device)].tolist(),
        found.covers,
        found.radius,
        found.outliers,
    )


def _cover(distance: Tensor, to_labelled: Tensor, budget: int, radius: float) -> RobustCenters:
    left = to_labelled > REACH * radius
    near = (distance <= radius).float()
    gain = near @ left.float()
    picks: list[int] = []
    covers: list[int] = []
    while len(picks) < budget and bool(left.any()):
        row = int(gain.argmax())
        picks.append(row)
        gone = left & (distance[row] <= REACH * radius)
        covers.append(int(gone.sum()))
        gain -= near[:, gone].sum(1)
        left &= ~gone
    return RobustCenters(picks, covers, radius, int(left.sum()))
