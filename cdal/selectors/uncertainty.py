"""Uncertainty sampling: by entropy, by margin and by least confidence.

Sources: Settles, 2009, section 3.1 (entropy); Scheffer, Decomain and Wrobel, 2001 (margin); Lewis
and Gale, 1994 (least confidence).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.ranking import RankingSelector

UNCERTAINTIES = ("entropy", "margin", "least-confidence")
"""The columns of a pool's ``uncertainties``: entropy in bits, 1 - the difference of the two highest
probabilities, and 1 - the highest."""


def uncertainties_of(probabilities: Tensor) -> Tensor:
    """Compute each measure of vectors (…, C) that sum to 1, as (…, 3) float64.

    The columns are those of ``UNCERTAINTIES``.
    """
    p = probabilities.double()
    likely = p.topk(min(2, p.shape[-1])).values
    highest = likely[..., 0]
    margin = highest - likely[..., 1] if p.shape[-1] > 1 else highest
    values = (entropy_bits(p), 1 - margin, 1 - highest)
    return torch.stack([value.clamp(min=0) for value in values], -1)


def entropy_bits(probabilities: Tensor) -> Tensor:
    """Compute the Shannon entropy over the last dimension, in bits, (…) float64."""
    nats: Tensor = torch.special.entr(probabilities.double()).sum(-1)
    return nats / math.log(2)


class UncertaintySelector(RankingSelector):
    """Scores an image by one of ``UNCERTAINTIES``, the one that has the selector's name.

    The score is the mean over the image's regions if the pool has it, otherwise the measure of the
    image's single probability vector.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"probabilities", "uncertainties"})
    quick: ClassVar[bool] = True

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        p = pool.need("probabilities", self.name)
        known = uncertainties_of(p) if pool.uncertainties is None else pool.uncertainties.double()
        return known[:, UNCERTAINTIES.index(self.name)], p


@dataclass(frozen=True, slots=True)
class Entropy(UncertaintySelector):
    """The images whose regions have the highest entropy on average; scores in bits."""

    name: ClassVar[str] = "entropy"


@dataclass(frozen=True, slots=True)
class Margin(UncertaintySelector):
    """The images whose two most probable classes are closest; scores are 1 - the difference."""

    name: ClassVar[str] = "margin"


@dataclass(frozen=True, slots=True)
class LeastConfidence(UncertaintySelector):
    """The images whose most probable class is least probable; scores are 1 - its probability."""

    name: ClassVar[str] = "least-confidence"
