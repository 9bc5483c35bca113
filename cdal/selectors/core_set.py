"""Core-set selection (Sener and Savarese, ICLR 2018, Algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from cdal.selectors.k_center import k_center_greedy
from cdal.selectors.metric import ProductMetric, chunks
from cdal.selectors.pool import Pool
from cdal.selectors.selection import Pick, Progress, Selection, picks_possible


@dataclass(frozen=True, slots=True)
class CoreSet:
    """k-center greedy on the Euclidean distance of ``features``.

    The score is the distance to the nearest labelled or picked image, which the reason names.
    If nothing is labelled, the first pick is random and its score 0.
    """

    name: ClassVar[str] = "core-set"

    def select(
        self, pool: Pool, budget: int, seed: int = 0, progress: Progress | None = None
    ) -> Selection:
        features = pool.need("features", self.name)
        count = picks_possible(pool, budget)
        embedding = EuclideanEmbedding.of(features)
        found = k_center_greedy(embedding, pool.labelled, count, seed, progress)
        near = [
            pick if near is None else near
            for pick, near in zip(found.picks, found.nearest, strict=True)
        ]
        squared = embedding.pairwise(
            torch.tensor(found.picks, dtype=torch.int64, device=pool.device),
            torch.tensor(near, dtype=torch.int64, device=pool.device),
        )
        picks = (
            Pick(index, math.sqrt(distance), {"nearest": nearest})
            for index, distance, nearest in zip(
                found.picks, squared.tolist(), found.nearest, strict=True
            )
        )
        return Selection(self.name, tuple(picks))


@dataclass(frozen=True, slots=True, eq=False)
class EuclideanEmbedding(ProductMetric):
    """N feature vectors f as x = [f, ‖f‖², 1], y = [−2f, 1, ‖f‖²], so that x · y = ‖f − g‖².

    Attributes:
        x: left factors, (N, D + 2) float32, f being the features minus their mean.
        scale: ‖f‖², (N,) float32.
        features: as given, (N, D) float32.
    """

    x: Tensor
    scale: Tensor
    features: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Embed N feature vectors, (N, D) float32."""
        n, d = features.shape
        x = features.new_empty((n, d + 2))
        mean = features.mean(0, dtype=torch.float64)
        for rows in chunks(n, d * 8, x.device):
            centred = features[rows].double() - mean
            x[rows, :d] = centred.float()
            x[rows, d] = centred.square().sum(1).float()
        x[:, d + 1] = 1
        return cls(x, x[:, d].clone(), features)

    def right(self, x: Tensor) -> Tensor:
        f, norm, one = x[..., :-2], x[..., -2:-1], x[..., -1:]
        return torch.cat([-2 * f, one, norm], -1)

    def pairwise(self, rows: Tensor, cols: Tensor) -> Tensor:
        squared = self.x.new_empty(len(rows))
        for pairs in chunks(len(rows), 8 * self.features.shape[1], self.x.device):
            difference = self.features[rows[pairs]].double() - self.features[cols[pairs]]
            squared[pairs] = difference.square().sum(1).float()
        return squared
