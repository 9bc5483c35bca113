"""How unsure a model is of one region, by the three measures of uncertainty sampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cdal.selectors.pool import Pool

UNCERTAINTIES = ("entropy", "margin", "least-confidence")
"""The columns of a pool's ``uncertainties``: entropy in bits, 1 less the difference of the two
highest probabilities, and 1 less the highest."""


def uncertainties_of(probabilities: Tensor) -> Tensor:
    """Each measure of vectors (…, C) that sum to 1, as (…, 3) float64, in the order of the names.

    Sources: Settles, 2009, section 3.1; Scheffer, Decomain and Wrobel, 2001; Lewis and Gale, 1994.
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


def uncertainty_of_pool(pool: Pool, name: str) -> tuple[Tensor, Tensor]:
    """One measure of every image, (N,) float64, and class probabilities, (N, C).

    It is the mean over the image's regions where the pool has that, else the measure of the
    image's one vector of probabilities.

    Raises:
        PoolError: the pool has no probabilities.
    """
    p = pool.need("probabilities", name)
    known = uncertainties_of(p) if pool.uncertainties is None else pool.uncertainties.double()
    return known[:, UNCERTAINTIES.index(name)], p
