"""Images in tiles, as in ``cdal.models.tiling``, by tensors alone: a trace holds for any size.

All tiles of an image have the same size, and are seen at once.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from cdal.models.letterbox import GRID
from cdal.models.tiling import Tiling


class Axis(NamedTuple):
    """The T tiles along one axis of an image.

    Attributes:
        starts: their first pixels, (T,) int64.
        places: the pixels of each, (T, S) int64.
        borders: for each tile, from which pixel on it is the one to take features from, (T,) int64.
    """

    starts: Tensor
    places: Tensor
    borders: Tensor

    @classmethod
    def of(cls, tiling: Tiling, length: Tensor) -> Axis:
        """The tiles of an axis of this length, () int64, a multiple of ``GRID``."""
        over = (length - tiling.side).clamp(min=0)
        gaps = (over + tiling.step - 1).div(tiling.step, rounding_mode="floor")
        numbers = up_to(gaps + 1).double()
        starts = GRID * (numbers * over / gaps.clamp(min=1) / GRID).round().long()
        middles = (starts[:-1] + tiling.side + starts[1:]).div(2 * GRID, rounding_mode="floor")
        side = length.clamp(max=tiling.side)
        places = starts[:, None] + up_to(side)
        return cls(starts, places, torch.cat([starts[:1], GRID * middles]))

    def sources(self, stride: int) -> tuple[Tensor, Tensor]:
        """For each place of a map of the whole axis, the tile and the place in its map.

        Args:
            stride: of the map.
        """
        count = (self.places[-1, -1] + 1).div(stride, rounding_mode="floor")
        places = up_to(count)
        tiles = (stride * places[:, None] >= self.borders).long().sum(1) - 1
        return tiles, places - self.starts[tiles].div(stride, rounding_mode="floor")


class Grid(NamedTuple):
    """The tiles of an image."""

    down: Axis
    across: Axis

    @classmethod
    def of(cls, tiling: Tiling, image: Tensor) -> Grid:
        """The tiles of an image, (1, 3, H, W), whose sides are multiples of ``GRID``."""
        size = torch._shape_as_tensor(image)
        return cls(Axis.of(tiling, size[2]), Axis.of(tiling, size[3]))

    def number(self) -> Tensor:
        """The number of tiles, () int64."""
        return (
            torch._shape_as_tensor(self.down.starts)[0]
            * (torch._shape_as_tensor(self.across.starts)[0])
        )

    def cut(self, image: Tensor) -> Tensor:
        """The tiles of the image, (T, 3, h, w), row by row."""
        down, across = self.down.places, self.across.places
        parts = image[0].index_select(1, down.flatten()).index_select(2, across.flatten())
        parts = parts.reshape(3, down.shape[0], down.shape[1], across.shape[0], across.shape[1])
        return parts.permute(1, 3, 0, 2, 4).flatten(0, 1)

    def merged(self, maps: Tensor, stride: int) -> Tensor:
        """The map of the image, (1, D, H / stride, W / stride).

        Args:
            maps: of the tiles, (T, D, h / stride, w / stride).
            stride: of the maps.
        """
        rows, columns = self.down.sources(stride), self.across.sources(stride)
        tiles = rows[0][:, None] * self.across.starts.shape[0] + columns[0]
        at = (tiles * maps.shape[2] + rows[1][:, None]) * maps.shape[3] + columns[1]
        taken = maps.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, at.flatten())
        return taken.reshape(1, at.shape[0], at.shape[1], maps.shape[1]).permute(0, 3, 1, 2)


def up_to(count: Tensor) -> Tensor:
    """The numbers below a count, () int64: (count,) int64."""
    return torch.arange(cast(int, count))  # of the tensor itself, which a trace follows
