"""Selectors by several opinions about an image: BALD, MC dropout, and query by committee.

Opinions are a pool's ``samples``, or, where an image has many regions, their measures' means over
the regions, its ``disagreements``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from cdal.selectors.disagreement import disagreement_in, probabilities_in
from cdal.selectors.pool import Pool
from cdal.selectors.ranking import RankingSelector
from cdal.selectors.selection import Opinions

Disagreement = Literal["kl", "vote"]
"""How members of a committee disagree: by what they find probable, or by their votes."""


@dataclass(frozen=True, slots=True)
class BALD(RankingSelector):
    """The images on which passes disagree most, features dropping out.

    The score is the mutual information of prediction and weights, in bits: the entropy of the mean
    pass minus the mean of the entropies (Houlsby et al., 2011, equation 2), with Monte Carlo
    dropout (Gal, Islam and Ghahramani, ICML 2017, section 4). Of a head on a frozen backbone only
    the input of its last layer can drop out.
    """

    name: ClassVar[str] = "bald"
    opinions: ClassVar[Opinions] = "dropout"

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        information = disagreement_in(pool, "information", self.name)
        return information, probabilities_in(pool, self.name)


@dataclass(frozen=True, slots=True)
class MCDropout(RankingSelector):
    """The images whose mean pass has the highest entropy, features dropping out.

    Maximum entropy with Monte Carlo dropout (Gal, Islam and Ghahramani, ICML 2017, section 4); the
    score is in bits. BALD subtracts what each pass is unsure about by itself.
    """

    name: ClassVar[str] = "mc-dropout"
    opinions: ClassVar[Opinions] = "dropout"

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        entropy = disagreement_in(pool, "entropy", self.name)
        return entropy, probabilities_in(pool, self.name)


@dataclass(frozen=True, slots=True)
class Committee(RankingSelector):
    """The images on which the members of a committee disagree most.

    Query by committee (Seung, Opper and Sompolinsky, COLT 1992). The members are heads or networks
    that have each learnt from as many labelled images drawn with replacement. Scores are in bits.

    Attributes:
        disagreement: "kl" is the mean divergence of a member from the consensus (McCallum and
            Nigam, ICML 1998, section 4), which is the same as BALD's mutual information; "vote" is
            the entropy of the members' votes (Dagan and Engelson, ICML 1995, section 3, without
            their division by the logarithm of the number of members, which changes no order).

    Raises:
        ValueError: ``disagreement`` is neither.
    """

    name: ClassVar[str] = "committee"
    opinions: ClassVar[Opinions] = "committee"
    disagreement: Disagreement = "kl"

    def __post_init__(self) -> None:
        if self.disagreement not in ("kl", "vote"):
            raise ValueError(f"disagreement must be kl or vote, not {self.disagreement!r}")

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        measure = "information" if self.disagreement == "kl" else "votes"
        return disagreement_in(pool, measure, self.name), probabilities_in(pool, self.name)
