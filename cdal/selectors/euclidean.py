"""Squared Euclidean distance between feature vectors, as core-set selection uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from cdal.selectors.metric import ProductMetric, chunks


@dataclass(frozen=True, slots=True, eq=False)
class EuclideanEmbedding(ProductMetric):
    """N feature vectors f as x = [f, ‖f‖², 1], y = [−2f, 1, ‖f‖²], so that x · y = ‖f − g‖².

    Attributes:
        x: left factors, (N, D + 2) float32, f being the features less their mean.
        scale: ‖f‖², (N,) float32.
        features: as they were given, (N, D) float32.
    """

    x: Tensor
    scale: Tensor
    features: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Embed N feature vectors, (N, D) float32."""
        n, d = features.shape
        x = features.new_empty((n, d + 2))
        mean = features.mean(0, dtype=torch.float64)
        for rows in chunks(n, d * 8, x.device):
            centred = features[rows].double() - mean
            x[rows, :d] = centred.float()
            x[rows, d] = centred.square().sum(1).float()
        x[:, d + 1] = 1
        return cls(x, x[:, d].clone(), features)

    def right(self, x: Tensor) -> Tensor:
        f, norm, one = x[..., :-2], x[..., -2:-1], x[..., -1:]
        return torch.cat([-2 * f, one, norm], -1)

    def pairwise(self, rows: Tensor, cols: Tensor) -> Tensor:
        squared = self.x.new_empty(len(rows))
        for pairs in chunks(len(rows), 8 * self.features.shape[1], self.x.device):
            difference = self.features[rows[pairs]].double() - self.features[cols[pairs]]
            squared[pairs] = difference.square().sum(1).float()
        return squared
