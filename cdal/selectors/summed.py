"""Contextual diversity by several models of the same images: the sum of theirs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cdal.selectors.diversity import DiversityEmbedding, Missing
from cdal.selectors.metric import ProductMetric, Tick, go_on
from cdal.selectors.pool import Pool


class SummedDiversity(ProductMetric):
    """N images as vectors whose products are sums of contextual diversities.

    Args:
        parts: the embeddings of the same N images by each model.
        tick: called between blocks.
    """

    def __init__(self, parts: Sequence[DiversityEmbedding], tick: Tick = go_on) -> None:
        self.parts = parts
        self.scale = torch.stack([part.scale for part in parts]).sum(0)
        self.tick = tick

    @property
    def x(self) -> Tensor:
        return self.left(slice(None))

    def left(self, rows: Tensor | slice) -> Tensor:
        return torch.cat([part.left(rows) for part in self.parts], 1)

    def right(self, x: Tensor) -> Tensor:
        factors = torch.split(x, [part.width for part in self.parts], -1)
        pairs = zip(self.parts, factors, strict=True)
        return torch.cat([part.right(factor) for part, factor in pairs], -1)

    def to_all(self, right: Tensor) -> Tensor:
        factors = torch.split(right, [part.width for part in self.parts])
        pairs = zip(self.parts, factors, strict=True)
        return torch.stack([part.to_all(factor) for part, factor in pairs]).sum(0)

    def comparable(self, rows: Tensor, cols: Tensor) -> Tensor:
        return torch.stack([part.comparable(rows, cols) for part in self.parts]).any(0)

    def pairwise(self, rows: Tensor, cols: Tensor) -> Tensor:
        return self.by_class(rows, cols).sum(1).float()

    def by_class(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Split each pair's distance by class, (A, C) float64: first those of the first model."""
        return torch.cat([part.by_class(rows, cols) for part in self.parts], 1)


Diversity = DiversityEmbedding | SummedDiversity
"""Contextual diversities by one model, or by several."""


def diversity_of(pool: Pool, missing: Missing, tick: Tick = go_on) -> Diversity:
    """Embed a pool's images, by all of its models."""
    parts = [
        DiversityEmbedding.of(each.mixtures, each.present, missing, tick)
        for each in (pool, *pool.beside)
    ]
    return SummedDiversity(parts, tick) if pool.beside else parts[0]


def parts_of(diversity: Diversity) -> Sequence[DiversityEmbedding]:
    """The embeddings by each model."""
    return diversity.parts if isinstance(diversity, SummedDiversity) else (diversity,)
