"""DropQuery (Gupte et al., TMLR 2024): a diverse batch of images whose prediction is not robust."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cdal.selectors.k_means import k_means
from cdal.selectors.pool import Pool
from cdal.selectors.selection import Opinions, Pick, Progress, Selection, picks_possible

MAX_CLUSTERS = 500


@dataclass(frozen=True, slots=True)
class DropQuery:
    """Images that more than half of the passes of ``samples`` take for another class.

    Section 4 of "Revisiting Active Learning in the Era of Vision Foundation Models": of these
    candidates, k-means on ``features`` makes as many clusters as images are to be picked, and the
    image nearest to each centre is picked.

    It departs from the paper where it must rank a pool: large clusters come first, and after the
    nearest image of each cluster the second nearest of each. If there are fewer candidates than
    picks, the images follow on which the most passes disagree, the most uncertain first. There are
    at most 500 clusters.

    The score is the share of the passes that disagree. The reason has it too, with the number of
    candidates in the pick's cluster: ``{"disagree": 0.7, "alike": 12}``.
    """

    name: ClassVar[str] = "dropquery"
    opinions: ClassVar[Opinions] = "dropout"

    def select(
        self, pool: Pool, budget: int, seed: int = 0, progress: Progress | None = None
    ) -> Selection:
        features = pool.need("features", self.name)
        probabilities = pool.need("probabilities", self.name)
        samples = pool.need("samples", self.name)
        count = picks_possible(pool, budget)
        if count == 0:
            return Selection(self.name, ())
        report = progress or (lambda _: None)
        said = samples.argmax(2) != probabilities.argmax(1, keepdim=True)
        share = said.double().mean(1)
        rows = _candidates(pool.unlabelled, share, probabilities.max(1).values, count)
        clusters = min(count, MAX_CLUSTERS)
        points = features[rows]
        assigned = k_means(points, clusters, np.random.default_rng(seed), report)
        order, sizes = _round_by_round(points, assigned, clusters)
        report(1.0)
        picks = (
            Pick(row, disagree, {"disagree": disagree, "alike": size})
            for row, disagree, size in zip(
                rows[order[:count]].tolist(),
                share[rows[order[:count]]].tolist(),
                sizes[assigned[order[:count]]].tolist(),
                strict=True,
            )
        )
        return Selection(self.name, tuple(picks))


def _candidates(unlabelled: Tensor, share: Tensor, confidence: Tensor, count: int) -> Tensor:
    """Rows of the images on which more than half disagree, or of the first ``count`` by it."""
    wanted = unlabelled[share[unlabelled] > 0.5]
    if len(wanted) >= count:
        return wanted
    by_confidence = unlabelled[confidence[unlabelled].sort(stable=True).indices]
    order = share[by_confidence].sort(descending=True, stable=True).indices
    return by_confidence[order[:count]].sort().values


def _round_by_round(points: Tensor, assigned: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """All points, the nearest of each cluster first, then the second nearest; sizes of clusters."""
    sizes = assigned.bincount(minlength=clusters)
    sums = torch.zeros(clusters, points.shape[1], device=points.device)
    centres = sums.index_add_(0, assigned, points) / sizes.clamp(min=1)[:, None]
    distance = (points - centres[assigned]).square().sum(1)
    order = distance.sort(stable=True).indices
    order = order[assigned[order].sort(stable=True).indices]  # by cluster, then by distance
    starts = sizes.cumsum(0) - sizes
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - starts[assigned[order]]
    order = order[sizes[assigned[order]].sort(descending=True, stable=True).indices]
    return order[place[order].sort(stable=True).indices], sizes
