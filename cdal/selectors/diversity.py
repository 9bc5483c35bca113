"""Contextual diversity (Eq. 2 and 3 of CDAL, ECCV 2020) as a matrix product.

With P the mixtures of an image and L their logarithms, both zero where a class is not present,
h_c = Σ_j P_cj L_cj and m_c = 1 where c is present,

    d[a, b] = Σ_c m_c(a) m_c(b) ½ Σ_j (P_cj(a) − P_cj(b)) (L_cj(a) − L_cj(b)) = x(a) · y(b)
    x = [P, L, h, m],  y = ½ [−L, −P, m, h].

Hence a block of distances is one GEMM, and Eq. 3 over a selection S is (Σ_S x) · (Σ_S y).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from cdal.selectors.metric import ProductMetric, chunks
from cdal.selectors.mixtures import ClassMixtures

Missing = Literal["skip", "uniform"]
"""What to do with a class that one image has and the other has not: ``skip`` it, which is Eq. 2 to
the letter, or compare the mixture that is there with the ``uniform`` distribution."""

PROBABILITY_FLOOR = 1e-12
"""Probabilities are raised to this before the logarithm, so that no divergence is infinite."""

# Any origin is exact, and the mean of this many images serves as well as that of all.
_ORIGIN_IMAGES = 100


@dataclass(frozen=True, slots=True, eq=False)
class DiversityEmbedding(ProductMetric):
    """N images as vectors whose products are contextual diversities.

    Attributes:
        x: left factors, (N, K) float32, with K = 2RC + 2R for mixtures of shape (N, R, C).
        scale: h summed over the classes, (N,) float32: what cancels in a small distance.
        mixtures: the mixtures that were embedded, (N, R, C) float32.
        present: which of them there are, (N, R) bool.
        missing: what is done with a class that only one of two images has.
    """

    x: Tensor
    scale: Tensor
    mixtures: Tensor
    present: Tensor
    missing: Missing

    @classmethod
    def of(cls, mixtures: Tensor, present: Tensor, missing: Missing = "uniform") -> Self:
        """Embed N images.

        Distances do not depend on what is taken out of all P and all L alike, but rounding does:
        around the mean mixture the terms that cancel in x · y are small.

        Args:
            mixtures: P^c_I of Eq. 1, (N, R, C) float32.
            present: which of them there are, (N, R) bool.
            missing: what to do with a class that only one of two images has.
        """
        n, r, c = mixtures.shape
        origin = _mean_mixtures(mixtures, present, missing)
        log_origin = origin.double().log_()
        x = _absent_factors(origin, log_origin, missing).repeat(n, 1, 1)
        for rows in chunks(n, r * c * 8, x.device):
            at = present[rows].flatten().nonzero()[:, 0]
            p = mixtures[rows].flatten(0, 1).index_select(0, at)
            row = at % r
            # In float64 until the origin is out of it: near the origin the last bits count.
            log_p = p.double().clamp_(min=PROBABILITY_FLOOR).log_()
            log_p = log_p.sub_(log_origin.index_select(0, row)).float()
            p = p.sub_(origin.index_select(0, row))
            factors_of_rows = _with_products(p, log_p)
            x[rows].flatten(0, 1).index_copy_(0, at, factors_of_rows)
        return cls(x.flatten(1), x[..., -2].sum(1), mixtures, present, missing)

    def right(self, x: Tensor) -> Tensor:
        r, c = self.mixtures.shape[1:]
        p, log_p, h, m = x.unflatten(-1, (r, -1)).split([c, c, 1, 1], -1)
        return torch.cat([-log_p, -p, m, h], -1).mul_(0.5).flatten(-2)

    def comparable(self, rows: Tensor, cols: Tensor) -> Tensor:
        if self.missing == "uniform":
            return torch.ones_like(rows, dtype=torch.bool)
        # No class in common is a distance of exactly 0, and often that of most of the pool.
        return (self.present[rows] & self.present[cols]).any(1)

    def pairwise(self, rows: Tensor, cols: Tensor) -> Tensor:
        return self.by_class(rows, cols).sum(1).float()

    def by_class(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Split each pair's distance into what each class made of it, (A, C) float64.

        With one mixture an image (R = 1) these are the terms of the sum over the classes in KL.
        """
        r, c = self.mixtures.shape[1:]
        parts = self.x.new_empty((len(rows), c), dtype=torch.float64)
        for pairs in chunks(len(rows), 2 * r * c * 8, self.x.device):
            both = torch.cat([rows[pairs], cols[pairs]])
            images = self.mixtures.index_select(0, both), self.present.index_select(0, both)
            (p_a, p_b), (log_a, log_b), (in_a, in_b) = (
                factor.chunk(2) for factor in factors(*images, self.missing)
            )
            terms = p_a.sub_(p_b).mul_(log_a.sub_(log_b)).mul_(0.5 * (in_a * in_b)[..., None])
            parts[pairs] = terms.sum(1 if r == 1 else 2)
        return parts


def contextual_diversity(
    a: ClassMixtures, b: ClassMixtures, missing: Missing = "uniform"
) -> Tensor:
    """Compute Eq. 2 between A and B images, (A, B) float32.

    Args:
        a: mixtures of A images.
        b: mixtures of B images, of the same shape and on the same device.
        missing: what to do with a class that only one of two images has.
    """
    both = ClassMixtures.concatenate([a, b])
    embedding = DiversityEmbedding.of(both.mixtures, both.present, missing)
    rows = torch.arange(len(both), device=both.mixtures.device)
    return embedding.distances(rows[: len(a)], rows[len(a) :])


def aggregate_contextual_diversity(selection: ClassMixtures, missing: Missing = "uniform") -> float:
    """Compute Eq. 3 of a selection of B images, over its ordered pairs, in O(B·K)."""
    embedding = DiversityEmbedding.of(selection.mixtures, selection.present, missing)
    return embedding.aggregate(torch.arange(len(selection), device=selection.mixtures.device))


def factors(mixtures: Tensor, present: Tensor, missing: Missing) -> tuple[Tensor, Tensor, Tensor]:
    """P and log P, (N, R, C) float64 each, and which rows count, (N, R) float64.

    With ``uniform`` a row that is not present is the uniform distribution and counts: two images
    without the class differ by 0 there, as they should.
    """
    p, counted = mixtures.to(torch.float64, copy=True), present.double()
    if missing == "uniform":
        p.masked_fill_(~present[..., None], 1 / p.shape[-1])
        counted.fill_(1)
    return p, p.clamp(min=PROBABILITY_FLOOR).log_(), counted


def _mean_mixtures(mixtures: Tensor, present: Tensor, missing: Missing) -> Tensor:
    """Each class's mean mixture over some images in which it counts, (R, C) float32, above 0."""
    every = max(1, len(mixtures) // _ORIGIN_IMAGES)
    there = present[::every].float()
    count = there.sum(0)
    # A class that is not there is the uniform distribution, or needs any origin if none has it.
    absent = len(there) - count if missing == "uniform" else (count == 0).float()
    total = torch.einsum("nrc,nr->rc", mixtures[::every], there)
    total += absent[:, None] / mixtures.shape[-1]
    return total.div_((count + absent)[:, None]).clamp_(min=PROBABILITY_FLOOR)


def _absent_factors(origin: Tensor, log_origin: Tensor, missing: Missing) -> Tensor:
    """Left factors of an image that has no class, (R, 2C + 2) float32."""
    r, c = origin.shape
    if missing == "skip":
        return origin.new_zeros((r, 2 * c + 2))
    return _with_products(1 / c - origin, (-math.log(c) - log_origin).float())


def _with_products(p: Tensor, log_p: Tensor) -> Tensor:
    """[P, L, h, m] of rows that count, (A, 2C + 2)."""
    h = (p * log_p).sum(1, keepdim=True)
    return torch.cat([p, log_p, h, torch.ones_like(h)], 1)
