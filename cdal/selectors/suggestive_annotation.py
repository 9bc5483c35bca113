"""Suggestive Annotation (Yang et al., MICCAI 2017): uncertain images that represent the pool."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cdal.selectors.disagreement import disagreement_in
from cdal.selectors.k_means import unit_vectors
from cdal.selectors.pool import Pool
from cdal.selectors.selection import Opinions, Pick, Progress, Selection, picks_possible
from cdal.selectors.ties import highest, round_off

CANDIDATES = 2
"""So many uncertain images per pick: the paper chooses 8 of 16."""
BATCH = 1_000
"""Candidates are chosen for so many picks at a time, which limits memory."""
MOST_COVERED = 10_000
"""Of a larger pool, as many images as this, drawn at random, are to be represented."""


@dataclass(frozen=True, slots=True)
class SuggestiveAnnotation:
    """Of the images on which a committee is the least sure, those that represent the pool best.

    "Suggestive Annotation: A Deep Active Learning Framework for Biomedical Image Segmentation",
    section 2.2. The uncertainty of an image is the variance of the members' probabilities, on
    average over its regions; the members have learnt from labelled images drawn with replacement.
    Of the twice as many most uncertain images as are to be picked, a greedy search for the maximum
    set cover picks those that add most to Σ max cos(f_i, f_j): the similarity of each unlabelled
    image j to the most similar pick i, by ``features``.

    It departs from the paper in four ways. With head training, the members are heads on one
    backbone instead of whole networks. Of a pool of more than 10,000 images, a random sample is to
    be represented. Candidates are chosen for 1,000 picks at a time. Of two candidates that add the
    same, the more uncertain is picked.

    The score is what a pick adds to the sum, per image to be represented. The reason has the
    uncertainty: ``{"variance": 0.04}``.
    """

    name: ClassVar[str] = "suggestive-annotation"
    opinions: ClassVar[Opinions] = "committee"

    def select(
        self, pool: Pool, budget: int, seed: int = 0, progress: Progress | None = None
    ) -> Selection:
        features = pool.need("features", self.name)
        variances = disagreement_in(pool, "variance", self.name)
        count = picks_possible(pool, budget)
        if count == 0:
            return Selection(self.name, ())
        rows = pool.unlabelled
        variance = variances[rows].float()
        points = features[rows]
        drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:MOST_COVERED])
        cover = _Cover(points[torch.from_numpy(drawn).to(points.device)])
        left = round_off(variance)
        picks: list[Pick] = []
        while len(picks) < count:
            wanted = min(BATCH, count - len(picks))
            open_rows = int((left >= 0).sum())
            uncertain = highest(left, min(open_rows, CANDIDATES * wanted)).sort().values
            # Two images that nothing else represents add the same: the most uncertain comes first.
            uncertain = uncertain[left[uncertain].argsort(descending=True, stable=True)]
            for place, gain in cover.add(points[uncertain], wanted):
                row = int(uncertain[place])
                left[row] = -1.0
                picks.append(Pick(int(rows[row]), gain, {"variance": float(variance[row])}))
                if progress is not None:
                    progress(len(picks) / count)
        return Selection(self.name, tuple(picks))


class _Cover:
    """How similar each of M images is to the most similar pick, by their features (M, D).

    A late pick adds little to large similarities, so these are float64, and what is added is
    rounded to float32: it does not depend on the order of summation.
    """

    def __init__(self, points: Tensor) -> None:
        self._points = unit_vectors(points.double())
        self._best = self._points.new_zeros(len(points))

    def add(self, candidates: Tensor, count: int) -> Iterator[tuple[int, float]]:
        """Pick ``count`` of the candidates (K, D), each with what it adds on average.

        What a candidate adds only falls as others are picked, so old figures are upper bounds, and
        only the highest are computed again.
        """
        # Relative to the least similarity there is, so that the first pick adds something, too.
        similar = (unit_vectors(candidates.double()) @ self._points.T + 1).clamp(min=0)
        bound = (similar - self._best).clamp(min=0).mean(1).float()
        exact = torch.ones_like(bound, dtype=torch.bool)
        for _ in range(count):
            row = int(bound.argmax())
            while not exact[row]:
                bound[row] = (similar[row] - self._best).clamp(min=0).mean().float()
                exact[row] = True
                row = int(bound.argmax())
            yield row, float(bound[row])
            self._best = torch.maximum(self._best, similar[row])
            bound[row] = -1.0
            exact[:] = False
