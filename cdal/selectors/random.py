"""Random selection: the baseline that every other strategy must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cdal.selectors.pool import Pool
from cdal.selectors.selection import Pick, Progress, Selection, picks_possible


@dataclass(frozen=True, slots=True)
class Random:
    """Unlabelled images in an order drawn from the seed; every score is 0."""

    name: ClassVar[str] = "random"
    reads: ClassVar[frozenset[str]] = frozenset()
    quick: ClassVar[bool] = True

    def select(
        self, pool: Pool, budget: int, seed: int = 0, progress: Progress | None = None
    ) -> Selection:
        count = picks_possible(pool, budget)
        drawn = np.random.default_rng(seed).permutation(pool.unlabelled.cpu().numpy())
        if progress is not None:
            progress(1.0)
        return Selection(self.name, tuple(Pick(int(index), 0.0) for index in drawn[:count]))
