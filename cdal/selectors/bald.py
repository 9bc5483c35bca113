"""BALD (Houlsby et al., 2011) with Monte Carlo dropout (Gal, Islam and Ghahramani, ICML 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.ranking import RankingSelector
from cdal.selectors.uncertainty import entropy_bits


@dataclass(frozen=True, slots=True)
class BALD(RankingSelector):
    """The images on which the stochastic passes of ``samples`` disagree most.

    The score is the mutual information of prediction and weights, in bits: the entropy of the mean
    pass minus the mean of the entropies.
    """

    name: ClassVar[str] = "bald"

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        samples = pool.need("samples", self.name)
        mean = samples.double().mean(1)
        return (entropy_bits(mean) - entropy_bits(samples).mean(1)).clamp(min=0), mean
