"""Selectors that need no model, only the images' features scaled to length 1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from torch import Tensor

from cdal.selectors.k_means import unit_vectors
from cdal.selectors.pool import Pool
from cdal.selectors.selection import Progress, Selection, picks_possible


class FeatureSelector(ABC):
    """Picks by unit vectors; ``pick`` is called only if there is something to pick."""

    name: ClassVar[str]

    def select(
        self, pool: Pool, budget: int, seed: int = 0, progress: Progress | None = None
    ) -> Selection:
        features = pool.need("features", self.name)
        count = picks_possible(pool, budget)
        if count == 0:
            return Selection(self.name, ())
        rng = np.random.default_rng(seed)
        return self.pick(pool, unit_vectors(features), count, rng, progress or (lambda _: None))

    @abstractmethod
    def pick(
        self, pool: Pool, points: Tensor, count: int, rng: np.random.Generator, progress: Progress
    ) -> Selection:
        """Pick images.

        Args:
            pool: N images.
            points: their features scaled to length 1, (N, D) float32.
            count: from 1 to the number of unlabelled images.
            rng: draws what is random.
            progress: called with the share that is done.
        """
