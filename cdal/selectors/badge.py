"""BADGE (Ash et al., ICLR 2020): k-means++ seeding on hallucinated gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cdal.selectors.pool import Pool, PoolError
from cdal.selectors.selection import Pick, Progress, Selection, picks_possible


@dataclass(frozen=True, slots=True)
class BADGE:
    """Images whose gradients, if their pseudo-labels were true, are large and different.

    The gradient of the last layer is (p − one-hot(argmax p)) ⊗ ``features``; it is never formed,
    since the product of two gradients is the product of their parts' products. The first pick has
    the largest gradient; each further one is drawn with probability proportional to the squared
    distance from the nearest earlier pick, and has that distance as its score. Labelled images
    are ignored.
    """

    name: ClassVar[str] = "badge"

    def select(
        self, pool: Pool, budget: int, seed: int = 0, progress: Progress | None = None
    ) -> Selection:
        if pool.beside:
            raise PoolError("badge compares gradients of one model, and here are several")
        features = pool.need("features", self.name)
        probabilities = pool.need("probabilities", self.name)
        count = picks_possible(pool, budget)
        if count == 0:
            return Selection(self.name, ())
        rows = pool.unlabelled
        gradients = _Gradients(probabilities[rows].double(), features[rows].double())
        rng = np.random.default_rng(seed)
        position = int(gradients.squared_norm.argmax())
        squared = gradients.squared_norm.clone()
        nearest = torch.full_like(rows, -1)
        picks: list[Pick] = []
        left = torch.ones_like(rows, dtype=torch.bool)
        while True:
            score, near = math.sqrt(float(squared[position])), int(nearest[position])
            picks.append(Pick(int(rows[position]), score, {"nearest": None if near < 0 else near}))
            left[position] = False
            if progress is not None:
                progress(len(picks) / count)
            if len(picks) == count:
                return Selection(self.name, tuple(picks))
            distance = gradients.squared_distances(position)
            # Only the first pick is not measured against another one: drop its norms.
            closer = (distance < squared) | (len(picks) == 1)
            nearest[closer] = rows[position]
            squared = torch.where(closer, distance, squared)
            position = _draw(squared * left, left, rng)


class _Gradients:
    def __init__(self, probabilities: Tensor, features: Tensor) -> None:
        self._error = probabilities.clone()
        label = probabilities.argmax(1, keepdim=True)
        self._error.scatter_add_(1, label, -torch.ones_like(label, dtype=self._error.dtype))
        self._features = features
        self.squared_norm = self._error.square().sum(1) * features.square().sum(1)

    def squared_distances(self, row: int) -> Tensor:
        products = (self._error @ self._error[row]) * (self._features @ self._features[row])
        return (self.squared_norm + self.squared_norm[row] - 2 * products).clamp(min=0)


def _draw(weights: Tensor, left: Tensor, rng: np.random.Generator) -> int:
    """Draw one of the remaining images in proportion to its weight; the first if all are 0."""
    cumulative = weights.cumsum(0)
    total = float(cumulative[-1])
    if total == 0:
        return int(left.int().argmax())
    drawn = cumulative.new_tensor(rng.random() * total)
    row = int(torch.searchsorted(cumulative, drawn, right=True).clamp(max=len(weights) - 1))
    # Rounding can move the draw to the very end, where the image may already be picked.
    return row if weights[row] > 0 else int(weights.argmax())
