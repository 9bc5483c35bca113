"""Core-set selection (Sener and Savarese, ICLR 2018): greedy, and robust against outliers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from cdal.selectors.k_center import k_center_greedy
from cdal.selectors.metric import ProductMetric, Tick, chunks, go_on, mean_of
from cdal.selectors.pool import Pool
from cdal.selectors.robust_k_center import RobustCenters, robust_k_center
from cdal.selectors.selection import Pick, Progress, Selection, Told, picks_possible


@dataclass(frozen=True, slots=True)
class CoreSet:
    """k-center on the Euclidean distance of ``features``: Algorithm 1, or robust with ``outliers``.

    Without outliers it is k-center greedy. The score is the distance to the nearest labelled or
    picked image, which the reason names. If nothing is labelled, the first pick is random and its
    score 0.

    With outliers, a share of the pool may stay far from all picks, as in the paper's robust
    k-center (Algorithm 2). The paper asks a mixed-integer program whether a radius suffices; here
    a greedy cover does, with balls of three radii (Charikar et al., SODA 2001, section 3), which
    needs no solver and proves less. Both search for the smallest radius that suffices.
    Of a pool of more than 4,000 images, a random sample is looked at. Picks that the cover does
    not need follow by k-center greedy. The score of a pick of the cover is the number of images in
    its ball that no earlier pick covers, with the reason ``{"covers": 12}``.

    Attributes:
        outliers: the share of the pool that may stay uncovered, in [0, 1); the paper has 1e-4.

    Raises:
        ValueError: ``outliers`` is not in [0, 1).
    """

    name: ClassVar[str] = "core-set"
    reads: ClassVar[frozenset[str]] = frozenset({"features"})
    quick: ClassVar[bool] = True
    outliers: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.outliers < 1:
            raise ValueError(f"outliers must be at least 0 and below 1, not {self.outliers}")

    def select(
        self, pool: Pool, budget: int, seed: int = 0, progress: Progress | None = None
    ) -> Selection:
        features = pool.need("features", self.name)
        count = picks_possible(pool, budget)
        told = Told(progress)
        embedding = EuclideanEmbedding.of(features, told.tick)
        if not self.outliers or count == 0:
            return Selection(self.name, _greedy(embedding, pool.labelled, count, seed, told))
        found = self._robust(embedding, pool, count, seed)
        rows = pool.unlabelled[torch.tensor(found.picks, dtype=torch.int64, device=pool.device)]
        first = tuple(
            Pick(row, float(covers), {"covers": covers})
            for row, covers in zip(rows.tolist(), found.covers, strict=True)
        )
        centres = pool.labelled.clone()
        centres[rows] = True
        rest = _greedy(embedding, centres, count - len(first), seed, None)
        told(1.0)
        return Selection(
            self.name,
            first + rest,
            report={"radius": found.radius, "cover": len(first), "outliers": found.outliers},
        )

    def _robust(
        self, embedding: EuclideanEmbedding, pool: Pool, count: int, seed: int
    ) -> RobustCenters:
        centres = pool.labelled.clone()
        greedy = k_center_greedy(embedding, pool.labelled, count, seed)
        centres[torch.tensor(greedy.picks, device=pool.device)] = True
        squared, _ = embedding.nearest(None, centres.nonzero()[:, 0])
        return robust_k_center(
            embedding.features[pool.unlabelled],
            embedding.features[pool.labelled],
            count,
            self.outliers,
            math.sqrt(float(squared.clamp(min=0).max())),
            seed,
        )


def _greedy(
    embedding: EuclideanEmbedding,
    labelled: Tensor,
    count: int,
    seed: int,
    progress: Progress | None,
) -> tuple[Pick, ...]:
    found = k_center_greedy(embedding, labelled, count, seed, progress)
    near = [
        pick if near is None else near
        for pick, near in zip(found.picks, found.nearest, strict=True)
    ]
    squared = embedding.pairwise(
        torch.tensor(found.picks, dtype=torch.int64, device=labelled.device),
        torch.tensor(near, dtype=torch.int64, device=labelled.device),
    )
    return tuple(
        Pick(index, math.sqrt(distance), {"nearest": nearest})
        for index, distance, nearest in zip(
            found.picks, squared.tolist(), found.nearest, strict=True
        )
    )


@dataclass(frozen=True, slots=True, eq=False)
class EuclideanEmbedding(ProductMetric):
    """N feature vectors f as x = [f, ‖f‖², 1], y = [−2f, 1, ‖f‖²], so that x · y = ‖f − g‖².

    Attributes:
        vectors: the left factors x, (N, D + 2) float32, f being the features minus their mean.
        scale: ‖f‖², (N,) float32.
        features: as given, (N, D) float32.
        tick: called between blocks.
    """

    vectors: Tensor
    scale: Tensor
    features: Tensor
    tick: Tick = go_on

    @classmethod
    def of(cls, features: Tensor, tick: Tick = go_on) -> Self:
        """Embed N feature vectors, (N, D) float32; ``tick`` is called between blocks."""
        n, d = features.shape
        x = features.new_empty((n, d + 2))
        mean = mean_of(features, tick)
        for rows in chunks(n, d * 8, x.device):
            tick()
            centred = features[rows].double() - mean
            x[rows, :d] = centred.float()
            x[rows, d] = centred.square().sum(1).float()
        x[:, d + 1] = 1
        return cls(x, x[:, d].clone(), features, tick)

    @property
    def x(self) -> Tensor:
        return self.vectors

    def right(self, x: Tensor) -> Tensor:
        f, norm, one = x[..., :-2], x[..., -2:-1], x[..., -1:]
        return torch.cat([-2 * f, one, norm], -1)

    def pairwise(self, rows: Tensor, cols: Tensor) -> Tensor:
        squared = self.x.new_empty(len(rows))
        for pairs in chunks(len(rows), 8 * self.features.shape[1], self.x.device):
            difference = self.features[rows[pairs]].double() - self.features[cols[pairs]]
            squared[pairs] = difference.square().sum(1).float()
        return squared
