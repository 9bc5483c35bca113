"""Tiles: large images, seen by a backbone in overlapping squares, become one map of features.

Each place takes its features from the tile in which it is farthest from the border. So a head sees
one map without seams, and an object that a border cuts is found once, as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from cdal.models.errors import ModelError
from cdal.models.features import ImageFeatures
from cdal.models.letterbox import GRID

MOST_TILES = 36
"""The maximum number of tiles per image; an image that would take more is shrunk."""

LEAST_SIDE = 3 * GRID

OVERLAP = 0.2
"""The share of a tile that the next one shows as well: at least two steps of the grid, so that no
place is taken from the outermost 32 pixels of a tile, where a backbone sees padding."""


class Span(NamedTuple):
    """The extent of a tile along one axis, in pixels of the image as the network sees it.

    Attributes:
        start, stop: what the tile shows.
        first, last: the part of which its features are taken.
    """

    start: int
    stop: int
    first: int
    last: int


class Tile(NamedTuple):
    """A part of an image, whose edges lie on the grid."""

    down: Span
    across: Span

    def of(self, image: ImageFeatures) -> ImageFeatures:
        """The features of this part; they share the memory."""
        rows, columns = image.content
        grid = GRID * math.ceil(rows / GRID)
        maps = []
        for level in image.maps:
            stride = grid // level.shape[1]
            down, across = (slice(s.start // stride, s.stop // stride) for s in self)
            maps.append(level[:, down, across])
        content = min(rows, self.down.stop), min(columns, self.across.stop)
        return ImageFeatures(
            tuple(maps), (content[0] - self.down.start, content[1] - self.across.start)
        )


@dataclass(frozen=True, slots=True)
class Tiling:
    """How images are cut into tiles.

    Attributes:
        tile: the side of a tile in pixels of the image.
        side: the side at which the network sees a tile, a multiple of ``GRID``.
    """

    tile: int
    side: int

    def __post_init__(self) -> None:
        if self.tile < 1 or self.side < LEAST_SIDE or self.side % GRID:
            raise ModelError(
                f"Tiles of {self.tile} pixels cannot be seen at {self.side}: that must be a "
                f"multiple of {GRID}, and at least {LEAST_SIDE}."
            )

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """The rows and columns at which an image of this height and width is seen."""
        scale = self.side / self.tile
        while True:
            rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
            tiles = self._count(rows) * self._count(columns)
            if tiles <= MOST_TILES:
                return rows, columns
            scale *= min(0.98, math.sqrt(MOST_TILES / tiles))

    def tiles(self, rows: int, columns: int) -> list[Tile]:
        """The tiles of an image of this seen size, row by row."""
        return [Tile(down, across) for down in self._spans(rows) for across in self._spans(columns)]

    def look(
        self, image: Tensor, extract: Callable[[Tensor], Sequence[ImageFeatures]], at_once: int
    ) -> ImageFeatures:
        """The features of a whole image, of which only a few tiles are in the network at a time.

        Args:
            image: (3, H, W) uint8 of the seen size, at least 1.
            extract: the features of tiles, (B, 3, S, S) uint8, whose padding is 0.
            at_once: the number of tiles per call.
        """
        rows, columns = image.shape[1:]
        tiles = self.tiles(rows, columns)
        whole: list[Tensor] = []
        for start in range(0, len(tiles), at_once):
            some = tiles[start : start + at_once]
            for tile, features in zip(some, extract(self._squares(image, some)), strict=True):
                height = tile.down.stop - tile.down.start
                strides = [height // level.shape[1] for level in features.maps]
                if not whole:
                    grid = tiles[-1].down.stop, tiles[-1].across.stop
                    whole = [
                        level.new_empty((len(level), *(length // stride for length in grid)))
                        for level, stride in zip(features.maps, strides, strict=True)
                    ]
                for target, level, stride in zip(whole, features.maps, strides, strict=True):
                    there = [slice(s.first // stride, s.last // stride) for s in tile]
                    here = [
                        slice((s.first - s.start) // stride, (s.last - s.start) // stride)
                        for s in tile
                    ]
                    target[:, there[0], there[1]] = level[:, here[0], here[1]]
        return ImageFeatures(tuple(whole), (rows, columns))

    def _squares(self, image: Tensor, tiles: Sequence[Tile]) -> Tensor:
        squares = image.new_zeros((len(tiles), 3, self.side, self.side))
        for square, (down, across) in zip(squares, tiles, strict=True):
            part = image[:, down.start : down.stop, across.start : across.stop]
            square[:, : part.shape[1], : part.shape[2]] = part
        return squares

    @property
    def step(self) -> int:
        """The most pixels from a tile to the next one."""
        return self.side - GRID * max(2, round(OVERLAP * self.side / GRID))

    def _count(self, length: int) -> int:
        """The number of tiles along an axis."""
        grid = GRID * math.ceil(length / GRID)
        return 1 + max(0, math.ceil((grid - self.side) / self.step))

    def _spans(self, length: int) -> list[Span]:
        """The tiles along an axis, spread evenly, with their edges on the grid."""
        grid = GRID * math.ceil(length / GRID)
        if grid <= self.side:
            return [Span(0, grid, 0, grid)]
        gaps = self._count(length) - 1
        starts = [GRID * round(n * (grid - self.side) / gaps / GRID) for n in range(gaps + 1)]
        borders = [
            GRID * ((before + self.side + after) // 2 // GRID) for before, after in pairwise(starts)
        ]
        parts = zip([0, *borders], [*borders, grid], strict=True)
        return [
            Span(start, start + self.side, *part) for start, part in zip(starts, parts, strict=True)
        ]
