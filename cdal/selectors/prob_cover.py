"""ProbCover (Yehuda, Dekel, Hacohen and Weinshall, NeurIPS 2022): a greedy cover by balls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cdal.selectors.feature_selector import FeatureSelector
from cdal.selectors.k_means import blocks, k_means, sample_of
from cdal.selectors.pool import Pool
from cdal.selectors.selection import Pick, Progress, Selection

_UNPACKED = 255  # rows whose sum fits into a byte
# Keeps the images that limit the radius outside the balls, whatever the last bits say.
_JUST_BELOW = 1 - 1e-4


@dataclass(frozen=True, slots=True)
class ProbCover(FeatureSelector):
    """Images whose balls cover the most images that no labelled or picked image's ball covers.

    A ball has the radius ``delta`` in the space of ``features`` scaled to length 1. Once all images
    are covered, a second cover begins, then a third: so a longer ranking is useful as well. Of a
    pool of more than 10,000 images, as many drawn are to be covered.

    The radius is the largest for which the share ``purity`` of the balls hold images of one
    pseudo-label only; pseudo-labels are the clusters of k-means, as many as there are classes
    (section 3.3 of the paper).

    The score is the number of images newly covered, itself included. The reason has the number of
    the cover: ``{"covers": 31, "cover": 1}``. The selection's report has the radius.

    Attributes:
        delta: the radius, from 0 to 2; none for the one by purity.
        purity: the share of balls that must be pure.
    """

    name: ClassVar[str] = "prob-cover"
    delta: float | None = None
    purity: float = 0.95

    def __post_init__(self) -> None:
        if self.delta is not None and not 0 < self.delta <= 2:
            raise ValueError(f"delta must be above 0 and at most 2, not {self.delta}")
        if not 0 < self.purity <= 1:
            raise ValueError(f"purity must be above 0 and at most 1, not {self.purity}")

    def pick(
        self, pool: Pool, points: Tensor, count: int, rng: np.random.Generator, progress: Progress
    ) -> Selection:
        sample = sample_of(torch.arange(len(points), device=points.device), rng)
        delta = self.delta
        if delta is None:
            classes = max(2, pool.mixtures.shape[2])
            labels = k_means(points, classes, rng, lambda share: progress(share / 4))
            delta = pure_radius(
                points, labels, sample, self.purity, lambda s: progress((1 + s) / 4)
            )
        cover = _Cover(points, sample, pool.labelled, delta, lambda s: progress(0.5 + s / 4))
        picks = cover.pick(count, lambda share: progress(0.75 + share / 4))
        return Selection(self.name, picks, report={"delta": delta})


def pure_radius(
    points: Tensor,
    labels: Tensor,
    sample: Tensor,
    purity: float,
    progress: Callable[[float], None] = lambda _: None,
) -> float:
    """The largest radius at which enough balls hold one pseudo-label only; 2 if there is but one.

    A ball is pure if its radius is below its centre's distance to the nearest image of another
    pseudo-label. So the radius is a quantile of these distances.

    Args:
        points: unit vectors, (N, D) float32.
        labels: pseudo-labels, (N,) int64.
        sample: the centres, (M,) int64, M at least 1.
        purity: the share of pure balls.
        progress: called with the share that is done.
    """
    nearest = points.new_empty(len(sample))
    for part in blocks(len(sample), len(points), points.device):
        rows = sample[part]
        cosines = points[rows] @ points.T
        cosines.masked_fill_(labels[rows, None] == labels, -torch.inf)
        nearest[part] = cosines.max(1).values
        progress(part.stop / len(sample))
    distances = (2 - 2 * nearest).clamp(min=0).sqrt().sort().values
    # A share of 1 - 0.95 is a little more than 0.05.
    impure = min(int((1 - purity) * len(sample) + 1e-6), len(sample) - 1)
    return min(2.0, float(distances[impure]) * _JUST_BELOW)


class _Cover:
    """Greedy cover (Algorithm 1 of the paper) on a graph of one bit per pair: 125 MB for 100,000.

    The graph has a row per image of the sample: which images' balls hold it.
    """

    def __init__(
        self,
        points: Tensor,
        sample: Tensor,
        labelled: Tensor,
        delta: float,
        progress: Callable[[float], None],
    ) -> None:
        # By rounding, an image may not be quite as long as 1: its ball still covers it.
        cosine = min(1 - 1e-6, 1 - delta * delta / 2)
        self._images = len(points)
        self._graph = np.empty((len(sample), (len(points) + 7) // 8), dtype=np.uint8)
        self._degree = np.zeros(len(points), dtype=np.int64)
        self._uncovered = np.ones(len(sample), dtype=np.bool_)
        for part in blocks(len(sample), len(points), points.device):
            within = points[sample[part]] @ points.T >= cosine
            self._degree += within.sum(0).cpu().numpy()
            self._uncovered[part] = ~within[:, labelled].any(1).cpu().numpy()
            self._graph[part] = np.packbits(within.cpu().numpy(), axis=1)
            progress(part.stop / len(sample))
        self._taken = labelled.cpu().numpy().copy()
        self._gains = self._degree.copy()
        self._lower_gains(~self._uncovered)
        self._cover = 1
        self._fresh = bool(self._uncovered.all())  # this cover covers nothing yet

    def pick(self, count: int, progress: Callable[[float], None]) -> tuple[Pick, ...]:
        """Pick ``count`` images, at most all unlabelled ones; ties go to the lowest index."""
        picks: list[Pick] = []
        while len(picks) < count:
            best = int(np.where(self._taken, -1, self._gains).argmax())
            gain = int(self._gains[best])
            if gain == 0 and not self._fresh:
                self._begin_cover()
                continue
            picks.append(Pick(best, float(gain), {"covers": gain, "cover": self._cover}))
            self._taken[best] = True
            self._fresh = self._fresh and gain == 0
            self._add(best)
            progress(len(picks) / count)
        return tuple(picks)

    def _add(self, image: int) -> None:
        in_ball = (self._graph[:, image // 8] >> (7 - image % 8) & 1).astype(np.bool_)
        newly = in_ball & self._uncovered
        self._uncovered &= ~newly
        if self._uncovered.any():
            self._lower_gains(newly)
        else:
            self._gains[:] = 0

    def _lower_gains(self, covered: NDArray[np.bool_]) -> None:
        """Count these images of the sample no longer."""
        rows = covered.nonzero()[0]
        for start in range(0, len(rows), _UNPACKED):
            bits = self._graph[rows[start : start + _UNPACKED]]
            unpacked = np.unpackbits(bits, axis=1, count=self._images)
            self._gains -= unpacked.sum(0, dtype=np.uint8)

    def _begin_cover(self) -> None:
        self._uncovered[:] = True
        self._gains = self._degree.copy()
        self._cover += 1
        self._fresh = True
