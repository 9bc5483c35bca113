"""Selections drawn image by image, each draw knowing the earlier ones, with their probabilities.

An image's weight is exp(logit) · g^32, g being its distance to the nearest labelled or drawn
image: a Plackett-Luce distribution whose weights fall as neighbours are drawn. If all logits are
equal, the most probable selection is that of k-center greedy: with contextual diversity, CDAL-CS.
The power is so high that draws are near it; which selection that is does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from cdal.selectors.coverage import distance_to_labelled
from cdal.selectors.metric import ProductMetric, chunks
from cdal.selectors.ties import round_off

PULL = 32.0
"""The power of a distance in an image's weight."""
# Distances below this share of the mean are rounding.
_FLOOR = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Distance:
    """The distances between the images of a pool, in units of their mean.

    Attributes:
        metric: between any two images.
        labelled: each image's distance to the nearest labelled one, (N,) float32.
        unit: the mean of these over the images that can be drawn.
    """

    metric: ProductMetric
    labelled: Tensor
    unit: float

    @classmethod
    def of(cls, metric: ProductMetric, labelled: Tensor) -> Self:
        """The distances in a pool whose labelled images are ``labelled``, (N,) bool."""
        nearest = distance_to_labelled(metric, labelled)
        rest = nearest[~labelled].double()
        return cls(metric, nearest, (float(rest.mean()) if len(rest) else 0.0) or 1.0)

    def logarithm(self, distances: Tensor) -> Tensor:
        """Logarithms of distances, in units."""
        return (distances / self.unit).clamp(min=_FLOOR).log()


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """E ordered selections of B of n images.

    Attributes:
        picks: places among the images, in the order of drawing, (E, B) int64.
        gaps: the log distances to the nearest labelled or drawn image before each draw, (E, B, n).
    """

    picks: Tensor
    gaps: Tensor

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """The exact log-probability of each draw given the earlier ones, (E, B) float32.

        Args:
            logits: (n,) float32, differentiable.
        """
        weights = logits + PULL * self.gaps
        # What was drawn before cannot be drawn again.
        order = torch.arange(self.picks.shape[1], device=logits.device)
        drawn = order.new_full(weights.shape[::2], len(order)).scatter(
            1, self.picks, order.expand_as(self.picks)
        )
        weights = weights.masked_fill(drawn[:, None] < order[:, None], -torch.inf)
        return weights.log_softmax(2).gather(2, self.picks[..., None]).squeeze(2)


def draw(
    logits: Tensor,
    images: Tensor,
    distance: Distance,
    budget: int,
    episodes: int,
    generator: torch.Generator,
) -> Draws:
    """Draw selections by their probability.

    Args:
        logits: (n,) float32.
        images: the row of each in the pool, (n,) int64.
        distance: between the images of the pool.
        budget: B, at most n.
        episodes: E.
        generator: on the CPU, so that every device draws the same.
    """
    uniform = torch.rand(episodes, budget, 1, generator=generator).to(logits.device)
    nearest = _Nearest(distance, images, episodes)
    taken = torch.zeros(episodes, len(images), dtype=torch.bool, device=logits.device)
    picks = torch.empty(episodes, budget, dtype=torch.int64, device=logits.device)
    gaps = logits.new_empty((episodes, budget, len(images)))
    logits = logits.detach()
    for turn in range(budget):
        gaps[:, turn] = nearest.logarithm()
        weights = logits + PULL * gaps[:, turn]
        weights = weights.masked_fill_(taken, -torch.inf).softmax(1)
        sums = weights.cumsum(1)
        chosen = torch.searchsorted(sums, uniform[:, turn] * sums[:, -1:], right=True)
        # Rounding must not lead beyond the last image that can be drawn.
        chosen = torch.minimum(chosen, _last_possible(weights))
        picks[:, turn] = chosen[:, 0]
        taken.scatter_(1, chosen, value=True)
        nearest.add(chosen[:, 0])
    return Draws(picks, gaps)


def most_probable(
    logits: Tensor,
    images: Tensor,
    distance: Distance,
    budget: int,
    progress: Callable[[float], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """The selection that takes the image of the largest weight each time; ties by the first.

    Args:
        logits: (n,) float32.
        images: the row of each in the pool, (n,) int64.
        distance: between the images of the pool.
        budget: B, at most n.
        progress: called with the share that is done.

    Returns:
        Places among the images, (B,) int64, and the logarithm of the weight of each when it was
        picked, (B,) float32.
    """
    nearest = _Nearest(distance, images, 1)
    taken = torch.zeros(len(images), dtype=torch.bool, device=logits.device)
    picks, scores = [], []
    for turn in range(budget):
        weights = logits + PULL * nearest.logarithm()[0]
        place = weights.masked_fill(taken, -torch.inf).argmax()
        picks.append(place)
        scores.append(weights[place])
        taken[place] = True
        nearest.add(place[None])
        if progress is not None:
            progress((turn + 1) / budget)
    return torch.stack(picks), torch.stack(scores)


class _Nearest:
    """The distances of n images to the nearest labelled or drawn one in each of E episodes."""

    def __init__(self, distance: Distance, images: Tensor, episodes: int) -> None:
        self._distance = distance
        x = distance.metric.x
        self._x = x.new_empty((len(images), x.shape[1]))
        for rows in chunks(len(images), 4 * x.shape[1], x.device):
            distance.metric.tick()
            self._x[rows] = x.index_select(0, images[rows])
        self._nearest = distance.labelled[images].repeat(episodes, 1)

    def add(self, places: Tensor) -> None:
        """Draw an image in each episode, given by its place, (E,)."""
        self._distance.metric.tick()
        right = self._distance.metric.right(self._x[places])
        self._nearest = torch.minimum(self._nearest, right @ self._x.T).clamp_(min=0)

    def logarithm(self) -> Tensor:
        """(E, n)."""
        return self._distance.logarithm(round_off(self._nearest))


def _last_possible(weights: Tensor) -> Tensor:
    """The last place in each row that has a weight above 0, (E, 1)."""
    places = torch.arange(weights.shape[1], device=weights.device)
    return torch.where(weights > 0, places, 0).amax(1, keepdim=True)
