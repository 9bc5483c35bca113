"""Uncertainty sampling by margin (Scheffer, Decomain and Wrobel, 2001)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.ranking import RankingSelector


@dataclass(frozen=True, slots=True)
class Margin(RankingSelector):
    """The images whose two most probable classes are closest; scores are 1 less the difference."""

    name: ClassVar[str] = "margin"

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        p = pool.need("probabilities", self.name)
        likely = p.double().topk(min(2, p.shape[1])).values
        margins = likely[:, 0] - likely[:, 1] if p.shape[1] > 1 else likely[:, 0]
        return (1 - margins).clamp(min=0), p
