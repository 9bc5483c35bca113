"""Uncertainty sampling by least confidence (Lewis and Gale, 1994)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.ranking import RankingSelector


@dataclass(frozen=True, slots=True)
class LeastConfidence(RankingSelector):
    """The images whose most probable class is least so; scores are 1 less its probability."""

    name: ClassVar[str] = "least-confidence"

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        p = pool.need("probabilities", self.name)
        return (1 - p.double().amax(1)).clamp(min=0), p
