"""Contextual diversity (Eq. 2 and 3 of CDAL, ECCV 2020) as a matrix product.

With P the mixtures of an image and L their logarithms, both zero where a class is not present,
h_c = Σ_j P_cj L_cj and m_c = 1 where c is present,

    d[a, b] = Σ_c m_c(a) m_c(b) ½ Σ_j (P_cj(a) − P_cj(b)) (L_cj(a) − L_cj(b)) = x(a) · y(b)
    x = [P, L, h, m],  y = ½ [−L, −P, m, h].

Hence a block of distances is one GEMM, and Eq. 3 over a selection S is (Σ_S x) · (Σ_S y).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from cdal.selectors.metric import ProductMetric, Tick, chunks, go_on
from cdal.selectors.mixtures import ClassMixtures
from cdal.selectors.sparse import mixture_rows

Missing = Literal["skip", "uniform"]
"""How to treat a class that only one of two images has: ``skip`` it, which is Eq. 2 to the letter,
or compare the one mixture with the ``uniform`` distribution."""

PROBABILITY_FLOOR = 1e-12
"""Least probability before the logarithm, so that no divergence is infinite."""

# Classes named as the reason of a pick.
_CLASSES = 5
# Any origin is exact, and the mean of this many images serves as well as that of all.
_ORIGIN_IMAGES = 100
# Negligible beside the difference of a float32 number from 1, unless that is 0.
_TINY = 1e-20


@dataclass(frozen=True, slots=True, eq=False)
class DiversityEmbedding(ProductMetric):
    """N images as vectors whose products are contextual diversities.

    Dense mixtures have their vectors made once. Sparse ones (see `sparse.py`) have them made when
    they are needed, block by block, since all of them may be too large for the memory; both give
    the same numbers.

    Attributes:
        scale: h summed over the classes, (N,) float32: what cancels in a small distance.
        mixtures: the embedded mixtures, (N, R, C) float32, dense or sparse.
        present: which of them exist, (N, R) bool.
        missing: how a class that only one of two images has is treated.
        origin: what is subtracted from all P, (R, C) float32.
        vectors: the left factors of dense mixtures, (N, K) float32, with K = 2RC + 2R; None for
            sparse ones.
        tick: called between blocks.
    """

    scale: Tensor
    mixtures: Tensor
    present: Tensor
    missing: Missing
    origin: Tensor
    vectors: Tensor | None
    tick: Tick = go_on

    @classmethod
    def of(
        cls, mixtures: Tensor, present: Tensor, missing: Missing = "uniform", tick: Tick = go_on
    ) -> Self:
        """Embed N images.

        Distances do not depend on a constant subtracted from all P and from all L, but rounding
        does. With the mean mixture and its logarithm subtracted, h is twice an image's distance
        from that mean: the terms that cancel in x · y are small.

        Args:
            mixtures: P^c_I of Eq. 1, (N, R, C) float32, dense or sparse.
            present: which of them exist, (N, R) bool.
            missing: how to treat a class that only one of two images has.
            tick: called between blocks, here and later.
        """
        n, r, c = mixtures.shape
        origin = _mean_mixtures(mixtures, present, missing)
        scale = origin.new_empty(n)
        x = None if mixtures.is_sparse else origin.new_empty((n, 2 * r * c + 2 * r))
        made = cls(scale, mixtures, present, missing, origin, x, tick)
        # Small chunks of temporaries: the allocator returns larger ones to the system each time.
        for rows in chunks(n, r * c * 8, scale.device):
            tick()
            part = made._embed(rows, None if x is None else x[rows])
            scale[rows] = part[:, 2 * r * c : 2 * r * c + r].sum(1)
        return made

    @property
    def width(self) -> int:
        """K, the length of a vector."""
        r, c = self.mixtures.shape[1:]
        return 2 * r * c + 2 * r

    @property
    def x(self) -> Tensor:
        """Left factors, (N, K) float32; those of sparse mixtures are made for each call."""
        return self.left(slice(None)) if self.vectors is None else self.vectors

    def left(self, rows: Tensor | slice) -> Tensor:
        if self.vectors is not None:
            return ProductMetric.left(self, rows)  # dataclasses with slots have no super()
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self)), device=self.scale.device)
        r, c = self.mixtures.shape[1:]
        x = self.scale.new_empty((len(rows), 2 * r * c + 2 * r))
        for part in chunks(len(rows), r * c * 8, x.device):
            self.tick()
            self._embed(rows[part], x[part])
        return x

    def _embed(self, rows: Tensor | slice, x: Tensor | None) -> Tensor:
        """Make the left factors of A images, (A, K), in ``x`` if it is given."""
        r, c = self.mixtures.shape[1:]
        there = self.present[rows, :, None].float()
        if x is None:
            x = self.scale.new_empty((len(there), 2 * r * c + 2 * r))
        left_p, left_log, left_h, left_m = torch.split(x, [r * c, r * c, r, r], 1)
        left_m[:] = self.present[rows] if self.missing == "skip" else 1
        # An absent class is the uniform distribution, or is at the origin: all zero.
        uniform = self.missing == "uniform"
        absent = torch.full_like(self.origin, 1 / c) if uniform else self.origin
        p = (mixture_rows(self.mixtures, rows) * there).addcmul_(1 - there, absent)
        p = p.clamp_(min=PROBABILITY_FLOOR).flatten(1)
        above = p - self.origin.flatten()
        log_p = _log_ratio(p, self.origin.flatten(), above)
        left_p[:] = above
        left_log[:] = log_p
        left_h[:] = above.mul_(log_p).view(-1, r, c).sum(-1)
        return x

    def right(self, x: Tensor) -> Tensor:
        r, c = self.mixtures.shape[1:]
        p, log_p, h, m = torch.split(x, [r * c, r * c, r, r], -1)
        return torch.cat([-log_p, -p, m, h], -1).mul_(0.5)

    def comparable(self, rows: Tensor, cols: Tensor) -> Tensor:
        if self.missing == "uniform":
            return torch.ones_like(rows, dtype=torch.bool)
        # Without a common class the distance is exactly 0, as it often is for most of the pool.
        return (self.present[rows] & self.present[cols]).any(1)

    def pairwise(self, rows: Tensor, cols: Tensor) -> Tensor:
        return self.by_class(rows, cols).sum(1).float()

    def by_class(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Split each pair's distance into the contributions of the classes, (A, C) float64.

        With one mixture per image (R = 1) these are the terms of the sum over the classes in KL.
        """
        r, c = self.mixtures.shape[1:]
        parts = self.scale.new_empty((len(rows), c), dtype=torch.float64)
        for pairs in chunks(len(rows), 2 * r * c * 8, parts.device):
            both = torch.cat([rows[pairs], cols[pairs]])
            images = mixture_rows(self.mixtures, both), self.present.index_select(0, both)
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
        missing: how to treat a class that only one of two images has.
    """
    both = ClassMixtures.concatenate([a, b])
    embedding = DiversityEmbedding.of(both.mixtures, both.present, missing)
    rows = torch.arange(len(both), device=both.mixtures.device)
    return embedding.distances(rows[: len(a)], rows[len(a) :])


def aggregate_contextual_diversity(selection: ClassMixtures, missing: Missing = "uniform") -> float:
    """Compute Eq. 3 of a selection of B images, over its ordered pairs, in O(B·K)."""
    embedding = DiversityEmbedding.of(selection.mixtures, selection.present, missing)
    return embedding.aggregate(torch.arange(len(selection), device=selection.mixtures.device))


def class_shares(parts: Tensor) -> list[dict[str, float]]:
    """Name the five classes that contributed most to each score, with their shares of it.

    Args:
        parts: each class's contribution, (A, C), each at least 0.

    Returns:
        For each of the A scores ``{"3": 0.8, …}``, largest first; empty if the score is 0.
    """
    totals = parts.sum(1, keepdim=True)
    shares, classes = (parts / totals.where(totals > 0, 1)).sort(
        stable=True, dim=1, descending=True
    )
    return [
        {str(c): share for c, share in zip(row, values, strict=True) if share > 0}
        for row, values in zip(
            classes[:, :_CLASSES].tolist(), shares[:, :_CLASSES].tolist(), strict=True
        )
    ]


def factors(mixtures: Tensor, present: Tensor, missing: Missing) -> tuple[Tensor, Tensor, Tensor]:
    """Compute P and log P, (N, R, C) float64 each, and which rows count, (N, R) float64.

    With ``uniform``, an absent row is the uniform distribution and counts: two images without the
    class differ by 0 there, as they should.
    """
    p, counted = mixtures.to(torch.float64, copy=True), present.double()
    if missing == "uniform":
        p.masked_fill_(~present[..., None], 1 / p.shape[-1])
        counted.fill_(1)
    return p, p.clamp(min=PROBABILITY_FLOOR).log_(), counted


def _mean_mixtures(mixtures: Tensor, present: Tensor, missing: Missing) -> Tensor:
    """Average each class's mixture over a sample of images, (R, C) float32, above 0."""
    every = max(1, len(mixtures) // _ORIGIN_IMAGES)
    sample = torch.arange(0, len(mixtures), every, device=mixtures.device)
    there = present[sample].float()
    count = there.sum(0)
    # An absent class is the uniform distribution; if no image has it, any origin will do.
    absent = len(there) - count if missing == "uniform" else (count == 0).float()
    total = (mixture_rows(mixtures, sample) * there[..., None]).sum(0)
    total += absent[:, None] / mixtures.shape[-1]
    return total.div_((count + absent)[:, None]).clamp_(min=PROBABILITY_FLOOR)


def _log_ratio(p: Tensor, origin: Tensor, above: Tensor) -> Tensor:
    """Compute ln(p / origin) in float32, precise to the last digits even near 0.

    Near 0 the quotient w has lost digits that the difference p − origin still has, but
    ln w / (w − 1) hardly depends on w: so multiply it by (p − origin) / origin. (log1p would do,
    but on some processors torch computes it number by number.)

    Args:
        p: above 0, (A, K).
        origin: above 0, (K,).
        above: p − origin, (A, K).
    """
    quotient = p / origin
    # If w is 1, 0 / 0 must be 0.
    lost = quotient.sub(1).add_(_TINY).mul_(origin)
    return quotient.log_().mul_(above).div_(lost)
