"""VAAL (Sinha, Ebrahimi and Darrell, ICCV 2019): the images that look least like labelled ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.ranking import RankingSelector
from cdal.selectors.selection import Companion

VaalSize = Literal["published", "small"]
"""The layers of the autoencoder: as published, or an eighth as wide for small images."""


@dataclass(frozen=True, slots=True)
class VAAL(RankingSelector):
    """The images that a discriminator is most certain are not labelled.

    "Variational Adversarial Active Learning", section 3. The variational autoencoder, the
    discriminator and their training are ``cdal.models.vaal``; the discriminator's output is the
    pool's ``likely_labelled``. The score is 1 minus that.

    Attributes:
        layers: "published", or "small" with an eighth of the channels.
        epochs: passes over the pool; 100 in the paper.

    Raises:
        ValueError: an option has an impossible value.
    """

    name: ClassVar[str] = "vaal"
    companion: ClassVar[Companion] = "adversary"
    layers: VaalSize = "published"
    epochs: int = 100

    def __post_init__(self) -> None:
        if self.layers not in get_args(VaalSize):
            raise ValueError(f"layers must be published or small, not {self.layers!r}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {self.epochs}")

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        likely = pool.need("likely_labelled", self.name)
        return (1 - likely).clamp(min=0), pool.need("probabilities", self.name)
