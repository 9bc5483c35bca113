"""Rewards of the nearest image: how well picks cover the pool, and how far they are from the rest.

Both count the labelled images as picked already. They answer what Eq. 3 of CDAL cannot: a mean over
all pairs of picks is largest for a few kinds of extreme images, chosen again and again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cdal.selectors.metric import ProductMetric


def distance_to_labelled(metric: ProductMetric, labelled: Tensor) -> Tensor:
    """Each image's distance to the nearest labelled one, (N,) float32; 0 for these.

    If nothing is labelled, it is the distance to an average image: the mean over the pool.

    Args:
        metric: distances between N images.
        labelled: (N,) bool.
    """
    centres = labelled.nonzero()[:, 0]
    if len(centres):
        return metric.nearest(None, centres)[0].masked_fill(labelled, 0)
    mean = metric.right(metric.x.sum(0, dtype=torch.float64).float()) / max(1, len(metric))
    return metric.to_all(mean).clamp(min=0)


def block(metric: ProductMetric, rows: Tensor, cols: Tensor) -> Tensor:
    """Distances (A, B) float32 from one product, off by a few digits where they are small.

    Good enough to learn from, and differentiably cheaper than ``metric.distances``.
    """
    left, right = metric.left(rows), metric.left(cols)
    return (left @ metric.right(right).T).clamp_(min=0)


class Coverage:
    """How much of the pool's distance to its nearest labelled images the picks take away.

    With c_i the distance of an unlabelled image to the nearest labelled one and d_ij that to pick
    j, the value is 1 − Σ_i min(c_i, min_j d_ij) / Σ_i c_i: 0 without picks, and 1 if every image
    has a copy that is picked or labelled. This is the objective of k-medians (facility location),
    with the labelled set given.
    """

    def __init__(self, metric: ProductMetric, labelled: Tensor) -> None:
        self._metric = metric
        self._pool = (~labelled).nonzero()[:, 0]
        self._labelled = distance_to_labelled(metric, labelled)

    def value(self, picks: Tensor, sample: Tensor | None = None) -> float:
        if sample is None:
            capped, before = self._exact(picks)
        else:
            two, _, before = self._distances(picks, sample)
            capped = two[:, 0]
        return 1 - float(capped.sum() / _total(before))

    def credit(self, picks: Tensor, sample: Tensor | None = None) -> Tensor:
        two, first, before = self._distances(picks, self._pool if sample is None else sample)
        # Without its nearest pick, an image falls back to the next one or to a labelled one.
        # A masked sum, because the summation order of index_add_ varies on CUDA.
        gap = two[:, 1] - two[:, 0]
        own = first[:, None] == torch.arange(len(picks), device=first.device)
        return torch.where(own, gap[:, None], 0.0).sum(0) / _total(before)

    def _exact(self, picks: Tensor) -> tuple[Tensor, Tensor]:
        before = self._labelled[self._pool].double()
        if not len(picks):
            return before, before
        distance, _ = self._metric.nearest(self._pool, picks)
        own = torch.isin(self._pool, picks)
        return torch.minimum(distance.double().masked_fill_(own, 0), before), before

    def _distances(self, picks: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Capped distances to the two nearest picks (M, 2), the nearest one (M,), the caps (M,)."""
        before = self._labelled[images].double()
        if not len(picks):
            return before[:, None].expand(-1, 2), torch.zeros_like(images), before
        distances = block(self._metric, images, picks)
        distances.masked_fill_(images[:, None] == picks, 0)
        found = distances.topk(min(2, len(picks)), 1, largest=False)
        two = torch.minimum(found.values.double(), before[:, None])
        if len(picks) == 1:
            two = torch.cat([two, before[:, None]], 1)
        return two, found.indices[:, 0], before


class Spread:
    """The mean distance of the picks to the nearest other pick or labelled image.

    The unit is the mean of the unlabelled images' distances to the nearest labelled one. k-center
    greedy maximises this step by step, so CDAL-CS is hard to beat at it.
    """

    def __init__(self, metric: ProductMetric, labelled: Tensor) -> None:
        self._metric = metric
        self._labelled = distance_to_labelled(metric, labelled)
        pool = self._labelled[~labelled]
        self._unit = float(_total(pool.double())) / max(1, len(pool))

    def value(self, picks: Tensor, sample: Tensor | None = None) -> float:  # noqa: ARG002
        if not len(picks):
            return 0.0
        two, _ = self._nearest(picks)
        return float(two[:, 0].mean()) / self._unit

    def credit(self, picks: Tensor, sample: Tensor | None = None) -> Tensor:  # noqa: ARG002
        two, nearest = self._nearest(picks)
        # Without a pick its own distance is lost, and its neighbours are farther from the rest.
        gap = two[:, 1] - two[:, 0]
        near = nearest[:, None] == torch.arange(len(picks), device=picks.device)
        gained = torch.where(near, gap[:, None], 0.0).sum(0)
        return (two[:, 0] - gained) / (len(picks) * self._unit)

    def _nearest(self, picks: Tensor) -> tuple[Tensor, Tensor]:
        """Each pick's distances to the two nearest others, (B, 2) float64, and the nearest, (B,).

        The nearest is given as a place among the picks; −1 if it is a labelled image.
        """
        before = self._labelled[picks].double()
        distances = block(self._metric, picks, picks).double()
        distances.fill_diagonal_(torch.inf)
        distances = torch.cat([distances, before[:, None]], 1)
        if len(picks) == 1:
            return distances[:, [1, 1]], torch.full_like(picks, -1)
        found = distances.topk(2, 1, largest=False)
        place = found.indices[:, 0]
        two = torch.minimum(found.values, before[:, None])
        return two, torch.where(place == len(picks), -1, place)


def _total(distances: Tensor) -> Tensor:
    """Their sum, or 1 if all are 0."""
    total = distances.sum()
    return torch.where(total > 0, total, 1.0)
