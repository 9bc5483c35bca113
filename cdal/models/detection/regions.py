"""The regions of an image in detection: its confident boxes before non-maximum suppression."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat
from typing import Self

from torch import Tensor

MIN_CONFIDENCE = 0.05
"""The confidence from which a box is a region by default: see docs/training.md."""

MAX_REGIONS = 100
"""The maximum number of regions per image."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxCandidates:
    """The boxes of each image that most confidently show an object, of whatever class.

    Attributes:
        vectors: class probabilities of K boxes per image, the most confident first, (K, C), or
            (K, 1 + C) with the background first; K is at most ``MAX_REGIONS`` per tile.
        background: 1 with a background class, otherwise 0.
    """

    vectors: list[Tensor]
    background: int

    @classmethod
    def of(
        cls, images: Iterable[Tensor], background: int, tiles: Iterable[int] | None = None
    ) -> Self:
        """Select the candidates among all boxes, given (A, background + C) vectors per image.

        Args:
            images: the vectors.
            background: 1 with a background class, otherwise 0.
            tiles: the number of tiles of each image; None if they are seen as a whole.
        """
        parts = repeat(1) if tiles is None else tiles
        return cls(
            [
                _best(vectors, background, MAX_REGIONS * count)
                for vectors, count in zip(images, parts, strict=False)
            ],
            background,
        )

    def regions(
        self, confidence: float = MIN_CONFIDENCE, keep_background: bool = False
    ) -> list[Tensor]:
        """Class vectors of the regions of each image.

        Args:
            confidence: the confidence from which a box is a region; the most confident box of an
                image always is one.
            keep_background: whether to keep the background, if the detector has it, as the last
                class; without it, vectors do not sum to 1.

        Returns:
            For each image (R, C) float32, or (R, C + 1) with background.
        """
        found = []
        for vectors in self.vectors:
            sure = _confidence(vectors, self.background) >= confidence
            regions = vectors[: sure.sum().clamp(min=1)].float()
            if self.background:
                regions = regions.roll(-1, 1) if keep_background else regions[:, 1:]
            found.append(regions)
        return found


def _best(vectors: Tensor, background: int, most: int) -> Tensor:
    confidence = _confidence(vectors, background)
    return vectors[confidence.topk(min(most, len(vectors))).indices]


def _confidence(vectors: Tensor, background: int) -> Tensor:
    return 1 - vectors[:, 0] if background else vectors.amax(1)
