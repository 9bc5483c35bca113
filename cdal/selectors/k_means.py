"""k-means (Lloyd, 1982) with greedy k-means++ seeding (Arthur and Vassilvitskii, SODA 2007).

The seeding looks at wide points in a random projection, whose distances are off by a few per cent
(Johnson and Lindenstrauss, 1984): it draws anyway. Everything after it is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SAMPLE = 10_000
"""Most images that are looked at pair by pair; of a larger set, as many drawn by the seed."""

_ITERATIONS = 50
_SEEDING_WIDTH = 128
_BLOCK_BYTES = {"cpu": 2**25, "cuda": 2**28}


def unit_vectors(features: Tensor) -> Tensor:
    """Scale feature vectors, (N, D) floating point, to length 1; zero vectors stay zero."""
    return functional.normalize(features, dim=1)


def k_means(
    points: Tensor,
    clusters: int,
    rng: np.random.Generator,
    progress: Callable[[float], None] = lambda _: None,
) -> Tensor:
    """Assign N points to their nearest of ``clusters`` centres, (N,) int64; some may have none.

    The centres are those of a sample of at most ``SAMPLE`` points. Points that are alike are in
    the same cluster. Memory grows with the sample times the clusters.

    Args:
        points: (N, D) float32.
        clusters: at least 1.
        rng: draws the sample, the projection and the first centres.
        progress: called with the share that is done.
    """
    sample = points[sample_of(torch.arange(len(points), device=points.device), rng)]
    clusters = min(clusters, len(sample))
    if clusters <= 1:
        return torch.zeros(len(points), dtype=torch.int64, device=points.device)
    centres = _first_centres(sample, clusters, rng, lambda share: progress(share / 2))
    likeness = _likeness(sample, centres)
    assigned = likeness.argmax(1)
    for step in range(_ITERATIONS):
        progress((1 + step / _ITERATIONS) / 2)
        count = assigned.bincount(minlength=clusters)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, assigned, sample)
        means = torch.where(count > 0, sums / count.clamp(min=1), centres)
        # Later iterations move few centres: only distances to these change.
        moved = (means != centres).any(1).nonzero()[:, 0]
        centres = means
        likeness[:, moved] = _likeness(sample, centres[moved])
        before, assigned = assigned, likeness.argmax(1)
        if torch.equal(before, assigned):
            break
    return assigned if len(sample) == len(points) else _nearest(points, centres)


def sample_of(rows: Tensor, rng: np.random.Generator) -> Tensor:
    """The rows, (A,) int64, or ``SAMPLE`` of them in the same order if there are more."""
    if len(rows) <= SAMPLE:
        return rows
    drawn = np.sort(rng.choice(len(rows), SAMPLE, replace=False))
    return rows[torch.from_numpy(drawn).to(rows.device)]


def blocks(count: int, width: int, device: torch.device) -> Iterator[slice]:
    """Split ``count`` rows so that a few float32 blocks of this width fit into memory."""
    step = max(1, _BLOCK_BYTES.get(device.type, 2**25) // (4 * max(1, width)))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _first_centres(
    points: Tensor, clusters: int, rng: np.random.Generator, progress: Callable[[float], None]
) -> Tensor:
    """Draw centres, each with probability proportional to the squared distance from the others.

    Of a few draws, the one that lowers the sum of the squared distances most becomes the centre.
    """
    trials = 2 + int(math.log(clusters))
    seen = points
    if points.shape[1] > _SEEDING_WIDTH:
        projection = rng.standard_normal((points.shape[1], _SEEDING_WIDTH), dtype=np.float32)
        seen = points @ torch.from_numpy(projection).to(points) / math.sqrt(_SEEDING_WIDTH)
    norms = seen.square().sum(1)
    drawn = torch.from_numpy(rng.integers(len(points), size=1)).to(points.device)
    rows: list[int] = []
    squared = torch.full_like(norms, torch.inf)
    while True:
        distances = norms[:, None] + norms[drawn] - 2 * (seen @ seen[drawn].T)
        distances = torch.minimum(distances.clamp(min=0), squared[:, None])
        best = int(distances.sum(0).argmin())
        rows.append(int(drawn[best]))
        if len(rows) == clusters:
            return points[rows]
        progress(len(rows) / clusters)
        squared = distances[:, best].clone()
        squared[rows] = 0
        cumulative = squared.double().cumsum(0)
        draws = torch.from_numpy(rng.random(trials)).to(cumulative) * cumulative[-1]
        drawn = torch.searchsorted(cumulative, draws, right=True).clamp(max=len(points) - 1)


def _likeness(points: Tensor, centres: Tensor) -> Tensor:
    """What falls with the distance of a point from a centre, (N, K)."""
    return points @ centres.T - centres.square().sum(1) / 2


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    found = torch.empty(len(points), dtype=torch.int64, device=points.device)
    for rows in blocks(len(points), len(centres), points.device):
        found[rows] = _likeness(points[rows], centres).argmax(1)
    return found
