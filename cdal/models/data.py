"""The images that a network learns from, prepared once and kept in memory as far as they fit."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor

from cdal.models.errors import Stopped

MEMORY_LIMIT = 2**30
"""The memory in bytes for prepared images; further images are read again in every epoch."""

LOADER_THREADS = min(8, os.cpu_count() or 1)

Example = tuple[Tensor, Tensor]
"""An image, uint8, and its target; predictions.py describes targets."""


class Dataset(Protocol):
    """Labelled images, which several threads read at once."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example:
        """An image, (3, H, W) uint8, and its target."""
        ...


class Examples(Protocol):
    """Labelled images as a network takes them."""

    def __len__(self) -> int: ...

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Any, list[Tensor]]]:
        """Prepared images or features, and targets, for each tensor of indices in ``order``."""
        ...


class Preparer(Protocol):
    """The part of a network that prepares images and targets."""

    @property
    def image_size(self) -> int: ...

    @property
    def learns_objects(self) -> bool: ...

    def prepare_example(self, image: Tensor, target: Tensor) -> Example: ...

    def count_classes(self, target: Tensor) -> Tensor: ...


class PreparedImages:
    """A prepared data set: images of one size with their targets, in batches.

    Every image is read and prepared once, and kept as long as there is room within the memory
    limit. The others are read again whenever they are needed, one batch ahead.

    Args:
        data: the labelled images.
        network: the network that they are prepared for.
        memory_limit: the memory for prepared images in bytes.
    """

    def __init__(self, data: Dataset, network: Preparer, memory_limit: int = MEMORY_LIMIT) -> None:
        self._data = data
        self._network = network
        size = network.image_size
        # A mask is a third of its image; other targets are a few numbers.
        room = min(len(data), memory_limit // (4 * size**2))
        self._kept = torch.empty((room, 3, size, size), dtype=torch.uint8)
        self._kept_targets: dict[int, Tensor] = {}
        self._class_counts: dict[int, Tensor] = {}
        self._rows = torch.arange(len(data))

    @property
    def image_size(self) -> int:
        """The side S of the images."""
        return self._network.image_size

    @property
    def with_objects(self) -> bool:
        """Whether the targets of a segmentation say which pixels are of the same object."""
        return self._network.learns_objects

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> Example:
        """An image, (3, S, S) uint8, and its target, both prepared."""
        row = int(self._rows[index])
        target = self._kept_targets.get(row)
        return self._read(row) if target is None else (self._kept[row], target)

    @property
    def class_counts(self) -> Tensor:
        """How often each class occurs in the targets, (C,) float64; empty without images."""
        counts = [self._class_counts[row] for row in self._rows.tolist()]
        return torch.stack(counts).sum(0) if counts else torch.zeros(0, dtype=torch.float64)

    def put(self, row: int, image: Tensor, target: Tensor) -> None:
        """Add an image of the data set that was read and prepared elsewhere.

        Args:
            row: its index in the data set.
            image: (3, S, S) uint8, prepared.
            target: prepared.
        """
        self._class_counts[row] = self._network.count_classes(target).double()
        if row < len(self._kept):
            self._kept[row] = image
            self._kept_targets[row] = target

    def load(self, progress: Callable[[float], None], stop: Callable[[], bool]) -> None:
        """Read and prepare all images.

        Raises:
            Stopped: ``stop`` returned True.
        """
        with ThreadPoolExecutor(LOADER_THREADS) as pool:
            try:
                for row, (image, target) in enumerate(pool.map(self._read, range(len(self)))):
                    if stop():
                        raise Stopped
                    self.put(row, image, target)
                    progress((row + 1) / len(self))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def take(self, rows: Sequence[int]) -> PreparedImages:
        """The images of these rows, in this order; they share the memory."""
        some = copy.copy(self)
        some._rows = self._rows[torch.tensor(list(rows), dtype=torch.int64)]
        return some

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Images (B, 3, S, S) uint8 and their targets for each tensor of indices in ``order``."""
        if all(row in self._kept_targets for row in self._rows.tolist()):
            for indices in order:
                rows = self._rows[indices]
                yield self._kept[rows], [self._kept_targets[row] for row in rows.tolist()]
            return
        with ThreadPoolExecutor(LOADER_THREADS) as pool:
            ahead: list[Future[Example]] = []
            for indices in (*order, torch.empty(0, dtype=torch.int64)):
                ready = ahead
                ahead = [pool.submit(self.__getitem__, index) for index in indices.tolist()]
                if ready:
                    images, targets = zip(*(future.result() for future in ready), strict=True)
                    yield torch.stack(images), list(targets)

    def _read(self, row: int) -> Example:
        return self._network.prepare_example(*self._data[row])
