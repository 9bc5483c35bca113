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
        origin = _mean_factors(mixtures, present, missing)
        uniform = origin.new_tensor([1 / c, -math.log(c)])[:, None, None]
        absent_p, absent_log = (uniform - origin).float()
        origin_p = origin[0].float()
        x = mixtures.new_empty((n, 2 * r * c + 2 * r), dtype=torch.float32)
        left_p, left_log, left_h, left_m = torch.split(x, [r * c, r * c, r, r], 1)
        left_m[:] = present if missing == "skip" else 1
        for rows in chunks(n, r * c * 8, x.device):
            there = present[rows, :, None].float()
            p = (mixtures[rows] - origin_p).mul_(there)
            # In float64 until the origin is out of it: near the origin the last bits count.
            log_p = mixtures[rows].double().clamp_(min=PROBABILITY_FLOOR).log_().sub_(origin[1])
            log_p = log_p.float().mul_(there)
            if missing == "uniform":  # a class that is not there is the uniform distribution
                p.addcmul_(1 - there, absent_p)
                log_p.addcmul_(1 - there, absent_log)
            left_p[rows] = p.flatten(1)
            left_log[rows] = log_p.flatten(1)
            left_h[rows] = p.mul_(log_p).sum(-1)
        return cls(x, left_h.abs().sum(1), mixtures, present, missing)

    def right(self, x: Tensor) -> Tensor:
        r, c = self.mixtures.shape[1:]
        p, log_p, h, m = torch.split(x, [r * c, r * c, r, r], -1)
        return torch.cat([-log_p, -p, m, h], -1).mul_(0.5)

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
        for pairs in chunks(len(rows), r * c * 8, self.x.device):
            a, b = rows[pairs], cols[pairs]
            p_a, log_a, in_a = factors(self.mixtures[a], self.present[a], self.missing)
            p_b, log_b, in_b = factors(self.mixtures[b], self.present[b], self.missing)
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


def _mean_factors(mixtures: Tensor, present: Tensor, missing: Missing) -> Tensor:
    """Each class's mean P and mean log P over some images in which it counts, (2, R, C) float64."""
    every = max(1, len(mixtures) // _ORIGIN_IMAGES)
    p, log_p, counted = factors(mixtures[::every], present[::every], missing)
    total = torch.stack([torch.einsum("nrc,nr->rc", f, counted) for f in (p, log_p)])
    return total / counted.sum(0).clamp(min=1)[:, None]
