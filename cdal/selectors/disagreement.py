"""How far several opinions about an image differ: of passes with dropout, or of a committee."""

from __future__ import annotations

import torch
from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.uncertainty import entropy_bits

DISAGREEMENTS = ("information", "entropy", "votes", "variance")
"""The columns of a pool's ``disagreements``: see ``disagreements_of``."""


def disagreements_of(samples: Tensor) -> Tensor:
    """Compute each measure of S opinions about a region, (…, S, C), as (…, 4) float64.

    The columns are those of ``DISAGREEMENTS``, the first three in bits: the mutual information of
    opinion and class, which is the entropy of the mean minus the mean of the entropies, and the
    mean divergence from the mean; the entropy of the mean; the entropy of the votes; and the
    variance, summed over the classes.
    """
    p = samples.double()
    mean = p.mean(-2, keepdim=True)
    whole = entropy_bits(mean.squeeze(-2))
    votes = torch.zeros_like(p).scatter_(-1, samples.argmax(-1, keepdim=True), 1.0).mean(-2)
    measures = (
        whole - entropy_bits(p).mean(-1),
        whole,
        entropy_bits(votes),
        # Not `var`, which warns where there are no images.
        (p - mean).square().mean(-2).sum(-1),
    )
    return torch.stack([measure.clamp(min=0) for measure in measures], -1)


def disagreement_in(pool: Pool, measure: str, selector: str) -> Tensor:
    """One of ``DISAGREEMENTS`` for each image, (N,) float64: as the pool has it, or of its samples.

    Raises:
        PoolError: the pool has neither.
    """
    column = DISAGREEMENTS.index(measure)
    if pool.disagreements is not None:
        return pool.disagreements[:, column].double()
    return disagreements_of(pool.need("samples", selector))[:, column]


def probabilities_in(pool: Pool, selector: str) -> Tensor:
    """What the opinions are on average, (N, C); the model's own if the pool has no samples.

    Raises:
        PoolError: the pool has neither.
    """
    if pool.samples is None:
        return pool.need("probabilities", selector)
    return pool.samples.double().mean(1)
