"""Which of the boxes before non-maximum suppression are regions of an image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from torch import Tensor

MIN_CONFIDENCE = 0.05
"""A box of which the detector is less sure that it shows anything is no region, if not asked for;
see docs/training.md."""

MAX_REGIONS = 100
"""Of an image."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxCandidates:
    """The most confident boxes of each image: it is sure that they show something, if not what.

    Attributes:
        vectors: class probabilities of K boxes an image, the most confident first, (K, C), or
            (K, 1 + C) with background's before them; K is at most ``MAX_REGIONS``.
        background: 1 with background, else 0.
    """

    vectors: list[Tensor]
    background: int

    @classmethod
    def of(cls, images: Iterable[Tensor], background: int) -> Self:
        """Of the vectors of all boxes, (A, background + C) an image."""
        return cls([_best(vectors, background) for vectors in images], background)

    def regions(
        self, confidence: float = MIN_CONFIDENCE, keep_background: bool = False
    ) -> list[Tensor]:
        """Class vectors of the regions of each image.

        Args:
            confidence: least of a region; the most confident box of an image is one in any case.
            keep_background: as one class more, the last one, where the detector has it; else
                vectors are without it, and don't sum to 1.

        Returns:
            Of each image (R, C) float32, or (R, C + 1) with background.
        """
        found = []
        for vectors in self.vectors:
            sure = _confidence(vectors, self.background) >= confidence
            regions = vectors[: sure.sum().clamp(min=1)].float()
            if self.background:
                regions = regions.roll(-1, 1) if keep_background else regions[:, 1:]
            found.append(regions)
        return found


def _best(vectors: Tensor, background: int) -> Tensor:
    confidence = _confidence(vectors, background)
    return vectors[confidence.topk(min(MAX_REGIONS, len(vectors))).indices]


def _confidence(vectors: Tensor, background: int) -> Tensor:
    return 1 - vectors[:, 0] if background else vectors.amax(1)
