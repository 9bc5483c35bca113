"""Core-set selection (Sener and Savarese, ICLR 2018, Algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from cdal.selectors.euclidean import EuclideanEmbedding
from cdal.selectors.k_center import k_center_greedy
from cdal.selectors.pool import Pool
from cdal.selectors.selection import Pick, Progress, Selection, picks_possible


@dataclass(frozen=True, slots=True)
class CoreSet:
    """k-center greedy on the Euclidean distance of ``features``.

    The score is the distance to the nearest labelled or picked image, which the reason names.
    Where nothing is labelled the first pick is random and its score 0.
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
