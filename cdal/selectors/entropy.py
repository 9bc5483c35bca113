"""Uncertainty sampling by entropy (Settles, 2009, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.ranking import RankingSelector, entropy_bits


@dataclass(frozen=True, slots=True)
class Entropy(RankingSelector):
    """The images whose ``probabilities`` have the highest entropy; scores in bits."""

    name: ClassVar[str] = "entropy"

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        p = pool.need("probabilities", self.name)
        return entropy_bits(p), p
