"""Uncertainty sampling by entropy (Settles, 2009, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.ranking import RankingSelector
from cdal.selectors.uncertainty import uncertainty_of_pool


@dataclass(frozen=True, slots=True)
class Entropy(RankingSelector):
    """The images whose regions have the highest entropy on average; scores in bits."""

    name: ClassVar[str] = "entropy"

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        return uncertainty_of_pool(pool, self.name)
