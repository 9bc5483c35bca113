"""Selectors by the disagreement of several opinions: BALD, and query by committee."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.ranking import RankingSelector
from cdal.selectors.selection import Opinions
from cdal.selectors.uncertainty import entropy_bits


@dataclass(frozen=True, slots=True)
class BALD(RankingSelector):
    """The images on which the passes of ``samples`` disagree most, features dropping out.

    The score is the mutual information of prediction and weights, in bits: the entropy of the mean
    pass minus the mean of the entropies (Houlsby et al., 2011, equation 2), with Monte Carlo
    dropout (Gal, Islam and Ghahramani, ICML 2017, section 4). Of a head on a frozen backbone only
    the input of its last layer can drop out.
    """

    name: ClassVar[str] = "bald"
    opinions: ClassVar[Opinions] = "dropout"

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        samples = pool.need("samples", self.name)
        mean = samples.double().mean(1)
        return (entropy_bits(mean) - entropy_bits(samples).mean(1)).clamp(min=0), mean


@dataclass(frozen=True, slots=True)
class Committee(BALD):
    """The images on which the members of a committee, in ``samples``, disagree most.

    Query by committee (Seung, Opper and Sompolinsky, COLT 1992) with the mean divergence of a
    member from the consensus as disagreement (McCallum and Nigam, ICML 1998, section 4), which is
    the same as BALD's mutual information, in bits. The members are heads that have each learnt from
    as many labelled images drawn with replacement.
    """

    name: ClassVar[str] = "committee"
    opinions: ClassVar[Opinions] = "committee"
