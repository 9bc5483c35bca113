"""The rewards of CDAL-RL (CDAL, ECCV 2020, section 3.2): Rcd, Rvr and Rsr, and their sum R.

Each part gives the value of a selection and each pick's credit: by how much the value would fall
without that pick. The parts are normalised, because as published they have no common scale: Rcd
grows with the square of the budget while Rvr lies in (0, 1), so α would be meaningless.

In Rvr and Rsr the labelled images count as selected: they already represent their surroundings and
their classes. In Rcd they do not: in Eq. 3 the pairs of a pick and a labelled image would soon
outnumber the pairs of picks, and a batch of identical images would pass as diverse.

As published ("raw"), Rcd is the sum of Eq. 3 over ordered pairs, Rvr has the features' own
distances, Rsr is the sum of Eq. 5, and labelled images play no part.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from cdal.selectors.coverage import Coverage, Spread
from cdal.selectors.metric import Tick, go_on, mean_of
from cdal.selectors.pool import Pool, PoolError
from cdal.selectors.summed import Diversity

Sums = Literal["normalised", "raw"]
"""Whether the parts of a reward have a common scale, or are as in the paper."""
Part = Literal["spread", "coverage", "cd", "vr", "sr"]
PARTS: tuple[Part, ...] = get_args(Part)
_BLOCK_ELEMENTS = 4 * 2**20


class RewardPart(Protocol):
    """One part of the reward, for picks given as indices into the pool, (B,) int64.

    A part that is a mean over the pool is estimated on ``sample``, (M,) int64, if it is given:
    a random sample of the unlabelled images. Such an estimate, in float32, is enough for learning,
    and its cost does not grow with the pool.
    """

    def value(self, picks: Tensor, sample: Tensor | None = None) -> float:
        """The normalised reward of a selection."""
        ...

    def credit(self, picks: Tensor, sample: Tensor | None = None) -> Tensor:
        """What each pick adds to the value of the others, (B,) float64."""
        ...


def semantic_representation(region_counts: Tensor, selected: Tensor, scale: float) -> float:
    """Rsr of Eq. 5: Σ_c log(|R^c| / λ) over the selected images' regions of each class.

    A class without a region in the selection counts as having one: log 0 would not be a penalty
    but the end of learning.

    Args:
        region_counts: regions per pseudo-label, (N, C).
        selected: indices, (B,) int64.
        scale: λ, in regions.
    """
    counts = region_counts[selected].sum(0, dtype=torch.float64)
    return float((counts.clamp(min=1) / scale).log().sum())


class ContextualDiversityReward:
    """Rcd: Eq. 3 of the picks as the mean of Eq. 2 over their pairs.

    The unit is the mean distance between two images of the pool, so a random selection earns about
    1.
    """

    def __init__(self, embedding: Diversity, sums: Sums = "normalised") -> None:
        self._embedding = embedding
        self._raw = sums == "raw"
        n = len(embedding)
        everything = torch.arange(n, device=embedding.scale.device)
        mean = embedding.aggregate(everything) / (n * (n - 1)) if n > 1 else 0.0
        self._unit = mean if mean > 0 else 1.0

    def value(self, picks: Tensor, sample: Tensor | None = None) -> float:  # noqa: ARG002
        return self._embedding.aggregate(picks) / self._pairs(len(picks))

    def credit(self, picks: Tensor, sample: Tensor | None = None) -> Tensor:  # noqa: ARG002
        x = self._embedding.left(picks).double()
        # Each pick's sum includes its distance to itself, which is 0.
        return 2 * (x @ self._embedding.right(x.sum(0))) / self._pairs(len(picks))

    def _pairs(self, b: int) -> float:
        """The number of ordered pairs, times the unit; 1 for the sum itself."""
        if self._raw:
            return 1.0
        return max(1, b * (b - 1)) * self._unit


class VisualReward:
    """Rvr of Eq. 4: exp of minus the mean distance of the unlabelled images to the nearest pick.

    The labelled images count as picks. The unit of distance is the features' root mean square
    distance from their mean: networks' features have norms in the tens, where exp(−distance) is 0
    whatever is selected.
    """

    def __init__(
        self,
        features: Tensor,
        labelled: Tensor,
        sums: Sums = "normalised",
        tick: Tick = go_on,
    ) -> None:
        self._features = features
        self._tick = tick
        self._pool = (~labelled).nonzero().squeeze(1)
        if sums == "raw":
            self._labelled = torch.full_like(features[:, 0], torch.inf, dtype=torch.float64)
            self._unit = 1.0
            return
        everything = torch.arange(len(features), device=features.device)
        centres = labelled.nonzero().squeeze(1)
        distances, _ = nearest(features, everything, centres, 1, torch.float64, tick)
        self._labelled = distances[:, 0]
        self._unit = _radius(features, tick)

    def value(self, picks: Tensor, sample: Tensor | None = None) -> float:
        capped, _ = self._distances(picks, sample, 1)
        return math.exp(-float(capped.mean()) / self._unit)

    def credit(self, picks: Tensor, sample: Tensor | None = None) -> Tensor:
        capped, first = self._distances(picks, sample, 2)
        # Without its nearest pick, an image falls back to the next one or to a labelled one. Ties
        # add 0. A masked sum, because the summation order of index_add_ varies on CUDA.
        gap = capped[:, 1] - capped[:, 0]
        own = first[:, None] == torch.arange(len(picks), device=first.device)
        loss = torch.where(own, gap[:, None], 0.0).sum(0)
        scale = self._unit * len(capped)
        total = capped[:, 0].sum()
        return (-total / scale).exp() - (-(total + loss) / scale).exp()

    def _distances(self, picks: Tensor, sample: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
        """Each image's distances to the nearest picks, capped by that to a labelled image."""
        images = self._pool if sample is None else sample
        dtype = torch.float64 if sample is None else torch.float32
        distances, first = nearest(self._features, images, picks, count, dtype, self._tick)
        return torch.minimum(distances.double(), self._labelled[images, None]), first


class SemanticReward:
    """Rsr: Eq. 5 as the mean over the pool's classes.

    Unless given, λ is the number of regions each of these classes would have if the selection held
    its share of the pool's regions, evenly distributed; at least 1. It shifts the rewards of a
    given budget without changing their differences.
    """

    def __init__(
        self,
        region_counts: Tensor,
        labelled: Tensor,
        scale: float | None = None,
        sums: Sums = "normalised",
    ) -> None:
        self._scale = scale
        self._divisor = 1
        totals = region_counts.sum(0, dtype=torch.float64)
        self._counts = region_counts[:, totals > 0]
        self._labelled = labelled.nonzero().squeeze(1)
        self._classes = max(1, self._counts.shape[1])
        self._share = float(totals.sum()) / (max(1, len(region_counts)) * self._classes)
        if sums == "raw":
            self._labelled = self._labelled[:0]
        else:
            self._divisor = self._classes

    def value(self, picks: Tensor, sample: Tensor | None = None) -> float:  # noqa: ARG002
        selected = torch.cat([self._labelled, picks])
        scale = self._scale or max(1.0, self._share * len(selected))
        return semantic_representation(self._counts, selected, scale) / self._divisor

    def credit(self, picks: Tensor, sample: Tensor | None = None) -> Tensor:  # noqa: ARG002
        own = self._counts[picks].double()
        counts = own.sum(0) + self._counts[self._labelled].sum(0, dtype=torch.float64)
        logs = [n.clamp(min=1).log() for n in (counts, counts - own)]
        return (logs[0] - logs[1]).sum(1) / self._divisor


class Reward:
    """R = α (spread + coverage + Rcd) + (1 − α)(Rvr + Rsr), of the requested parts.

    Args:
        pool: with ``features`` for "vr" and ``region_counts`` for "sr".
        parts: any of ``PARTS``, at least one.
        alpha: the weight of "spread", "coverage" and "cd", in [0, 1]; 0.75 in the paper.
        embedding: of the whole pool.
        scale: λ of "sr", in regions; None for the share of an even distribution.
        sums: whether "cd", "vr" and "sr" have a common scale, or are as published.

    Raises:
        PoolError: the pool lacks an array that a part needs.
    """

    def __init__(
        self,
        pool: Pool,
        parts: Collection[Part],
        alpha: float,
        embedding: Diversity,
        scale: float | None = None,
        sums: Sums = "normalised",
    ) -> None:
        self._parts: dict[Part, tuple[float, RewardPart]] = {}
        if "spread" in parts:
            self._parts["spread"] = alpha, Spread(embedding, pool.labelled)
        if "coverage" in parts:
            self._parts["coverage"] = alpha, Coverage(embedding, pool.labelled)
        if "cd" in parts:
            self._parts["cd"] = alpha, ContextualDiversityReward(embedding, sums)
        if "vr" in parts:
            features = _required(pool.features, "features", "vr")
            self._parts["vr"] = (
                1 - alpha,
                VisualReward(features, pool.labelled, sums, embedding.tick),
            )
        if "sr" in parts:
            counts = torch.cat(
                [
                    _required(each.region_counts, "region_counts", "sr")
                    for each in (pool, *pool.beside)
                ],
                1,
            )
            self._parts["sr"] = 1 - alpha, SemanticReward(counts, pool.labelled, scale, sums)

    def values(self, picks: Tensor) -> dict[str, float]:
        """Each part's exact, unweighted value, and their weighted sum as "total"."""
        values: dict[str, float] = {
            name: part.value(picks) for name, (_, part) in self._parts.items()
        }
        total = sum(weight * values[name] for name, (weight, _) in self._parts.items())
        return {**values, "total": total}

    def value(self, picks: Tensor, sample: Tensor | None = None) -> float:
        """The weighted sum: see ``RewardPart.value``."""
        return sum(weight * part.value(picks, sample) for weight, part in self._parts.values())

    def credit(self, picks: Tensor, sample: Tensor | None = None) -> Tensor:
        """Each pick's share of the gain, (B,) float64: see ``RewardPart.credit``."""
        total = torch.zeros(len(picks), dtype=torch.float64, device=picks.device)
        for weight, part in self._parts.values():
            total += weight * part.credit(picks, sample)
        return total


def nearest(
    features: Tensor,
    images: Tensor,
    centres: Tensor,
    count: int,
    dtype: torch.dtype,
    tick: Tick = go_on,
) -> tuple[Tensor, Tensor]:
    """Find the Euclidean distances from images to their nearest centres, in row blocks.

    Args:
        features: (N, D).
        images: indices, (M,) int64.
        centres: indices, (B,) int64.
        count: 1 for the nearest centre, 2 for the next one as well.
        dtype: the type to compute in. A matrix product finds a distance as the difference of large
            numbers: float32 loses those below about a thousandth of the features' norm.
        tick: called between blocks.

    Returns:
        Distances (M, count), infinite if there are fewer centres, and which of the centres is
        nearest, (M,) int64.
    """
    distances = features.new_full((len(images), count), math.inf, dtype=dtype)
    which = torch.zeros_like(images)
    kept = min(count, len(centres))
    if kept:
        # Relative to the centres' mean, the numbers that cancel are as small as possible.
        origin = features[centres].mean(0, dtype=torch.float64).to(dtype)
        targets = features[centres].to(dtype) - origin
        norms = targets.square().sum(1)
        for rows in _blocks(len(images), max(len(centres), features.shape[1])):
            tick()
            x = features.index_select(0, images[rows]).to(dtype) - origin
            squares = torch.addmm(norms, x, targets.T, alpha=-2) + x.square().sum(1, keepdim=True)
            best = squares.topk(kept, 1, largest=False)
            distances[rows, :kept] = best.values.clamp(min=0).sqrt()
            which[rows] = best.indices[:, 0]
    return distances, which


def _radius(features: Tensor, tick: Tick) -> float:
    """Root mean square distance of the features from their mean; 1 if all are identical."""
    mean = mean_of(features, tick)
    total = 0.0
    for rows in _blocks(*features.shape):
        tick()
        total += float((features[rows] - mean).square().sum())
    return math.sqrt(total / max(1, len(features))) or 1.0


def _blocks(rows: int, width: int) -> Iterator[slice]:
    """Split rows into slices, so that temporaries do not grow with the pool."""
    step = max(1, _BLOCK_ELEMENTS // width)
    for start in range(0, rows, step):
        yield slice(start, start + step)


def _required(array: Tensor | None, name: str, part: Part) -> Tensor:
    if array is None:
        raise PoolError(f"{name} is missing: the reward {part!r} of cdal-rl needs it")
    return array
