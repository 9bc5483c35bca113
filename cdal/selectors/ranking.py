"""Selectors that score every image independently and take the highest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.selection import Pick, Progress, Selection, picks_possible
from cdal.selectors.ties import highest, round_off


class RankingSelector(ABC):
    """Picks the unlabelled images with the highest scores; ties go to the lowest index.

    The reason names the two most probable classes: ``{"classes": {"3": 0.41, "5": 0.38}}``.
    """

    name: ClassVar[str]

    @abstractmethod
    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        """Score all images.

        Returns:
            Scores, (N,) float64, each at least 0, and class probabilities, (N, C).

        Raises:
            PoolError: the pool lacks an array that the scores need.
        """

    def select(
        self,
        pool: Pool,
        budget: int,
        seed: int = 0,  # noqa: ARG002 (nothing is random here)
        progress: Progress | None = None,
    ) -> Selection:
        scores, probabilities = self.scores(pool)
        rows = pool.unlabelled
        rounded = round_off(scores[rows].float())
        best = highest(rounded, picks_possible(pool, budget)).sort().values
        rows = rows[best[rounded[best].sort(descending=True, stable=True).indices]]
        likely = probabilities[rows].topk(min(2, probabilities.shape[1]))
        picks = tuple(
            Pick(
                index, score, {"classes": {str(c): p for c, p in zip(classes, values, strict=True)}}
            )
            for index, score, classes, values in zip(
                rows.tolist(),
                scores[rows].tolist(),
                likely.indices.tolist(),
                likely.values.tolist(),
                strict=True,
            )
        )
        if progress is not None:
            progress(1.0)
        return Selection(self.name, picks)
