"""Uncertainty sampling by least confidence (Lewis and Gale, 1994)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.ranking import RankingSelector
from cdal.selectors.uncertainty import uncertainty_of_pool


@dataclass(frozen=True, slots=True)
class LeastConfidence(RankingSelector):
    """The images whose most probable class is least so; scores are 1 less its probability."""

    name: ClassVar[str] = "least-confidence"

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        return uncertainty_of_pool(pool, self.name)
