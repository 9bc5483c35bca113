"""Distances between images as products of two factors, so that blocks of them are GEMMs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# Below this share of scale(a) + scale(b) a float32 product may have lost five of its seven digits
# to cancellation: the distance is then computed from differences.
_CANCELLED = 1 / 16
# Temporaries that fit into a processor's cache; a GPU needs few, large launches instead.
_CHUNK_BYTES = {"cpu": 2**20, "cuda": 2**28}
_BLOCK_BYTES = {"cpu": 2**24, "cuda": 2**30}


Tick = Callable[[], None]
"""Called between the blocks of a long computation; if it raises, the computation ends."""


def go_on() -> None:
    """The tick of what nobody cancels."""


class ProductMetric(ABC):
    """Distances d(a, b) = x(a) · y(b) ≥ 0 between N images, y being a linear function of x.

    Attributes:
        scale: what cancels in a small distance, (N,) float32.
        tick: called between blocks.
    """

    scale: Tensor
    tick: Tick

    @property
    @abstractmethod
    def x(self) -> Tensor:
        """Left factors, (N, K) float32."""

    def __len__(self) -> int:
        return len(self.scale)

    def left(self, rows: Tensor | slice) -> Tensor:
        """The left factors of some images, (A, K) float32."""
        return self.x.index_select(0, rows) if isinstance(rows, Tensor) else self.x[rows]

    @property
    def y(self) -> Tensor:
        """Right factors of all images, (N, K) float32: as large as ``x``, recomputed each time."""
        return self.right(self.x)

    @abstractmethod
    def right(self, x: Tensor) -> Tensor:
        """Turn left factors (…, K) into right ones; linear, so a sum of ``x`` gives that of ``y``.

        This copies its argument: select rows first, ``right(x[rows])``.
        """

    def to_all(self, right: Tensor) -> Tensor:
        """The products of all images with a right factor, (K,): (N,) float32."""
        return self.x @ right

    @abstractmethod
    def pairwise(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Compute the distance of each (row, column) pair, (A,) float32, from differences."""

    def comparable(self, rows: Tensor, cols: Tensor) -> Tensor:  # noqa: ARG002 (for subclasses)
        """Tell which (row, column) pairs are not at distance 0 by definition, (A,) bool."""
        return torch.ones_like(rows, dtype=torch.bool)

    def distances(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Compute a block of distances, (A, B) float32.

        Args:
            rows: indices, (A,) int64.
            cols: indices, (B,) int64.
        """
        block = self.left(rows) @ self.right(self.left(cols)).T
        doubtful = block < _CANCELLED * (self.scale[rows, None] + self.scale[cols])
        same = rows[:, None] == cols
        block.masked_fill_(same, 0)
        at, to = (doubtful & ~same).nonzero(as_tuple=True)
        real = self.comparable(rows[at], cols[to])
        at, to = at[real], to[real]
        block[at, to] = self.pairwise(rows[at], cols[to])
        return block

    def nearest(self, rows: Tensor | None, centres: Tensor) -> tuple[Tensor, Tensor]:
        """Find each row's nearest centre, never holding more than a small block of distances.

        Args:
            rows: indices, (A,) int64; None for all images in order, which avoids a copy.
            centres: indices, (B,) int64, B at least 1.

        Returns:
            Its distance, (A,) float32, and its index, (A,) int64.
        """
        right = self.right(self.left(centres))
        count = len(self) if rows is None else len(rows)
        distance = right.new_empty(count)
        centre = torch.empty_like(distance, dtype=torch.int64)
        block_bytes = _BLOCK_BYTES.get(right.device.type, 2**24)
        step = max(1, block_bytes // (4 * max(right.shape)))
        for start in range(0, count, step):
            self.tick()
            part = slice(start, start + step)
            left = self.left(part if rows is None else rows[part])
            distance[part], which = (right @ left.T).min(0)
            centre[part] = centres[which]
        scale = self.scale if rows is None else self.scale[rows]
        at = (distance < _CANCELLED * (scale + self.scale[centre])).nonzero()[:, 0]
        images = at if rows is None else rows[at]
        real = self.comparable(images, centre[at])
        at, images = at[real], images[real]
        distance[at] = self.pairwise(images, centre[at])
        return distance, centre

    def aggregate(self, rows: Tensor) -> float:
        """Sum the distances of all ordered pairs of a selection, (B,) int64, in O(B·K)."""
        total = self.left(rows).sum(0, dtype=torch.float64)
        return max(0.0, float(total @ self.right(total)))


def mean_of(vectors: Tensor, tick: Tick = go_on) -> Tensor:
    """The mean of N vectors, (N, D): (D,) float64; ``tick`` is called between blocks."""
    count, width = vectors.shape
    total = vectors.new_zeros(width, dtype=torch.float64)
    for rows in chunks(count, 4 * width, vectors.device):
        tick()
        total += vectors[rows].sum(0, dtype=torch.float64)
    return total / count


def chunks(count: int, bytes_each: int, device: torch.device) -> Iterator[slice]:
    """Split ``count`` items into slices whose temporaries suit the device."""
    step = max(1, _CHUNK_BYTES.get(device.type, 2**24) // bytes_each)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
