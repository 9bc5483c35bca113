"""Uncertainty sampling by margin (Scheffer, Decomain and Wrobel, 2001)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.ranking import RankingSelector
from cdal.selectors.uncertainty import uncertainty_of_pool


@dataclass(frozen=True, slots=True)
class Margin(RankingSelector):
    """The images whose two likeliest classes are closest; scores are 1 less the difference."""

    name: ClassVar[str] = "margin"

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        return uncertainty_of_pool(pool, self.name)
