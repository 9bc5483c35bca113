"""k-center greedy (Sener and Savarese, ICLR 2018, Algorithm 1), exact and lazy.

Each pick is the image farthest from its nearest centre; centres are the labelled images and the
earlier picks. The distance to the nearest centre only falls as centres are added, so an old one is
an upper bound. The few candidates with the highest bounds are kept up to date; while the best of
them is above every other bound, it is the pick, and the rest of the pool need not be examined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cdal.selectors.metric import ProductMetric
from cdal.selectors.selection import Progress
from cdal.selectors.ties import highest, round_off

CANDIDATES = 256
"""Most images among which picks are made without examining the rest."""

_GONE = -1.0  # below every distance: the image is a centre
_NEVER_STALE = 2**62


@dataclass(frozen=True, slots=True)
class Centers:
    """The picks of k-center greedy.

    Attributes:
        picks: in order.
        nearest: each pick's nearest centre when it was picked; None for a random first pick.
        tied_at_zero: number of unlabelled images, picked or not, known to be at distance 0 from a
            centre other than themselves.
    """

    picks: list[int]
    nearest: list[int | None]
    tied_at_zero: int


def k_center_greedy(
    metric: ProductMetric,
    labelled: Tensor,
    budget: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Centers:
    """Pick ``budget`` images by k-center greedy; ties go to the lowest index.

    Args:
        metric: distances between N images.
        labelled: the first centres, (N,) bool. If there are none, the first pick is random.
        budget: from 0 to the number of unlabelled images.
        seed: of the first pick if nothing is labelled.
        progress: called with the share of the picks that is made.
    """
    if budget == 0:
        return Centers([], [], 0)
    search = _Search(metric, labelled)
    if not bool(labelled.any()):
        rng = np.random.default_rng(seed)
        search.add([int(rng.integers(len(metric)))], [None])
    search.refresh_all()
    while len(search.picks) < budget:
        search.pick_among_candidates(budget)
        if progress is not None:
            progress(len(search.picks) / budget)
    return Centers(search.picks, search.nearest_of_picks, search.tied_at_zero())


class _Search:
    def __init__(self, metric: ProductMetric, labelled: Tensor) -> None:
        self.metric = metric
        self.centres = labelled.nonzero()[:, 0].tolist()
        self.picks: list[int] = []
        self.nearest_of_picks: list[int | None] = []
        self.zero_picks = 0
        n, device = len(metric), labelled.device
        self.bound = torch.full((n,), torch.inf, device=device).masked_fill_(labelled, _GONE)
        self.nearest = torch.full((n,), -1, device=device)
        # How many of the centres each bound takes into account.
        self.seen = torch.zeros(n, dtype=torch.int64, device=device)
        self.seen.masked_fill_(labelled, _NEVER_STALE)

    def add(self, picks: list[int], nearest: list[int | None]) -> None:
        self.picks += picks
        self.centres += picks
        self.nearest_of_picks += nearest
        rows = torch.tensor(picks, device=self.bound.device)
        self.bound[rows] = _GONE
        self.seen[rows] = _NEVER_STALE

    def refresh_all(self) -> None:
        """Measure every image against all centres, for the initial bounds."""
        distance, nearest = self.metric.nearest(None, self._centres_from(0))
        self.bound = torch.minimum(round_off(distance), self.bound)
        self.nearest = nearest
        self._saw(torch.arange(len(self.bound), device=self.bound.device), len(self.centres))

    def refresh(self, rows: Tensor) -> None:
        """Make the bounds of these images exact."""
        for seen in torch.unique(self.seen[rows]).tolist():
            if seen >= len(self.centres):
                continue
            stale = rows[self.seen[rows] == seen]
            distance, nearest = self.metric.nearest(stale, self._centres_from(seen))
            distance = round_off(distance)
            old = self.bound[stale]
            self.nearest[stale] = torch.where(distance < old, nearest, self.nearest[stale])
            self.bound[stale] = torch.minimum(distance, old)
        self._saw(rows, len(self.centres))

    def _centres_from(self, first: int) -> Tensor:
        return torch.tensor(self.centres[first:], device=self.bound.device)

    def candidates(self, wanted: int) -> Tensor:
        """Find the images with the highest bounds, all of them exact; ascending by index."""
        count = min(CANDIDATES, max(64, 3 * wanted))
        # Refreshing more than the candidates at a time makes the matrix products worthwhile.
        batch = max(4 * count, len(self.bound) // 8)
        while True:
            top = highest(self.bound, count)
            if bool((self.seen[top] >= len(self.centres)).all()):
                return top[self.bound[top] > _GONE].sort().values
            self.refresh(highest(self.bound, batch))

    def pick_among_candidates(self, budget: int) -> None:
        """Pick at least one image, until one outside the candidates might be farther."""
        top = self.candidates(budget - len(self.picks))
        outside = _Outside.of(self.bound, top)
        between = round_off(self.metric.distances(top, top)).cpu().numpy()
        bound = self.bound[top].cpu().numpy()
        index = top.cpu().numpy()
        picked: list[int] = []  # rows of top
        for _ in range(budget - len(self.picks)):
            best = int(bound.argmax())
            if bound[best] == _GONE or not outside.is_behind(bound[best], index[best]):
                break
            picked.append(best)
            self.zero_picks += int(bound[best] == 0)
            np.minimum(bound, between[best], out=bound)
            bound[best] = _GONE
        step, nearer = _nearest_pick(between, picked, self.bound[top].cpu().numpy())
        nearest = np.where(nearer, index[picked][step], self.nearest[top].cpu().numpy())
        self.bound[top] = torch.from_numpy(bound).to(top.device)
        self.nearest[top] = torch.from_numpy(nearest).to(top.device)
        self._saw(top, len(self.centres) + len(picked))
        self.add(index[picked].tolist(), nearest[picked].tolist())

    def tied_at_zero(self) -> int:
        return self.zero_picks + int((self.bound == 0).sum())

    def _saw(self, rows: Tensor, centres: int) -> None:
        # A distance of 0 cannot fall further.
        self.seen[rows] = torch.where(self.bound[rows] > 0, centres, _NEVER_STALE)


def _nearest_pick(
    between: NDArray[np.float32], picked: list[int], bound: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Find the pick nearest to each candidate, and whether it is nearer than the bound.

    A pick is only measured against those before it.

    Args:
        between: distances between the candidates, (A, A).
        picked: rows of the picked candidates, in order.
        bound: distances to the nearest earlier centre, (A,).
    """
    made_at = np.full(len(between), len(picked))
    made_at[picked] = np.arange(len(picked))
    distance = between[picked]
    distance[np.arange(len(picked))[:, None] >= made_at] = np.inf
    return distance.argmin(0), distance.min(0) < bound


@dataclass(frozen=True, slots=True)
class _Outside:
    """The highest bound outside the candidates, and the lowest index with that bound."""

    bound: float
    index: int

    @classmethod
    def of(cls, bound: Tensor, candidates: Tensor) -> Self:
        others = bound.clone()
        others[candidates] = _GONE
        highest_bound, index = others.max(0)
        return cls(float(highest_bound), int(index))

    def is_behind(self, bound: float, index: int) -> bool:
        return bound > self.bound or (bound == self.bound and index < self.index)
