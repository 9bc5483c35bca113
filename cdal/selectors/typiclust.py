"""TypiClust (Hacohen, Dekel and Weinshall, ICML 2022): typical images of uncovered clusters."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cdal.selectors.core_set import EuclideanEmbedding
from cdal.selectors.feature_selector import FeatureSelector
from cdal.selectors.k_means import blocks, k_means, sample_of
from cdal.selectors.pool import Pool
from cdal.selectors.selection import Pick, Progress, Selection

# Both as in the authors' code: smaller clusters are outliers, and a distance of 0 is possible.
_SMALL = 5
_NEAR_ZERO = 1e-5


@dataclass(frozen=True, slots=True)
class TypiClust(FeatureSelector):
    """The most typical image of each of the largest clusters without labels.

    k-means divides the images' ``features``, scaled to length 1, into as many clusters as images
    are labelled or to be picked. Each pick comes from the cluster with the fewest labels and
    picks, the largest of these; clusters of at most five images come last. It is the image with
    the highest typicality: the inverse of the mean distance to its nearest neighbours among the
    cluster's unlabelled images (of a cluster with more than 10,000, among as many drawn).

    The score is the typicality. The reason has the number of images in the pick's cluster, and how
    many of them were labelled or picked before: ``{"cluster": 214, "covered": 0}``.

    Attributes:
        neighbours: whose mean distance counts.
        max_clusters: a limit to the number of clusters.
    """

    name: ClassVar[str] = "typiclust"
    reads: ClassVar[frozenset[str]] = frozenset({"features"})
    neighbours: int = 20
    max_clusters: int = 500

    def __post_init__(self) -> None:
        for name in ("neighbours", "max_clusters"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    def pick(
        self, pool: Pool, points: Tensor, count: int, rng: np.random.Generator, progress: Progress
    ) -> Selection:
        clusters = min(int(pool.labelled.sum()) + count, self.max_clusters)
        assigned = k_means(points, clusters, rng, lambda share: progress(share / 2))
        sizes = assigned.bincount(minlength=clusters)
        covered = assigned[pool.labelled].bincount(minlength=clusters)
        left = (sizes - covered).tolist()
        ranking = _Typicality(points, pool.unlabelled, assigned, self.neighbours, rng)
        queue = [
            (size <= _SMALL, labels, -size, cluster)
            for cluster, (size, labels) in enumerate(
                zip(sizes.tolist(), covered.tolist(), strict=True)
            )
            if left[cluster]
        ]
        heapq.heapify(queue)
        picks: list[Pick] = []
        while len(picks) < count:
            small, labels, size, cluster = heapq.heappop(queue)
            row, typicality = ranking.next_of(cluster)
            picks.append(Pick(row, typicality, {"cluster": -size, "covered": labels}))
            left[cluster] -= 1
            if left[cluster]:
                heapq.heappush(queue, (small, labels + 1, size, cluster))
            progress(0.5 + len(picks) / count / 2)
        return Selection(self.name, tuple(picks))


class _Typicality:
    """The unlabelled images of each cluster, the most typical first, measured when needed."""

    def __init__(
        self,
        points: Tensor,
        unlabelled: Tensor,
        assigned: Tensor,
        neighbours: int,
        rng: np.random.Generator,
    ) -> None:
        self._embedding = EuclideanEmbedding.of(points)
        self._unlabelled = unlabelled
        self._cluster = assigned[unlabelled]
        self._neighbours = neighbours
        self._rng = rng
        self._ranked: dict[int, list[tuple[int, float]]] = {}  # the best at the end

    def next_of(self, cluster: int) -> tuple[int, float]:
        """The most typical image of a cluster that was not returned before; its typicality."""
        if cluster not in self._ranked:
            rows = self._unlabelled[self._cluster == cluster]
            typicality = self._measure(rows)
            order = typicality.sort(descending=True, stable=True).indices.flip(0)
            self._ranked[cluster] = list(
                zip(rows[order].tolist(), typicality[order].tolist(), strict=True)
            )
        return self._ranked[cluster].pop()

    def _measure(self, rows: Tensor) -> Tensor:
        """The typicality of the images of a cluster, (A,) float32; 0 for an image alone."""
        others = sample_of(rows, self._rng)
        wanted = min(self._neighbours, len(others) - 1)
        typicality = torch.zeros(len(rows), device=rows.device)
        if wanted == 0:
            return typicality
        for block in blocks(len(rows), len(others), rows.device):
            squared = self._embedding.distances(rows[block], others)
            squared[rows[block, None] == others] = torch.inf  # nobody is a neighbour of itself
            nearest = squared.topk(wanted, largest=False).values
            typicality[block] = 1 / (nearest.sqrt().mean(1) + _NEAR_ZERO)
        return typicality
