"""The images a network learns from, read once and kept small."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from cdal.models.errors import Stopped

MEMORY_LIMIT = 2**30
"""Prepared images are kept in memory up to this many bytes, and read again in every epoch above."""

LOADER_THREADS = min(8, os.cpu_count() or 1)

Example = tuple[Tensor, Tensor]
"""An image and its target, see predictions.py."""


class Dataset(Protocol):
    """Labelled images. It is read from several threads at once."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example:
        """An image, (3, H, W) uint8, and its target, see predictions.py."""
        ...


class Preparing(Protocol):
    """The part of a network that makes its input."""

    @property
    def image_size(self) -> int: ...

    def prepare_example(self, image: Tensor, target: Tensor) -> Example: ...

    def count_classes(self, target: Tensor) -> Tensor: ...


class PreparedImages:
    """A data set as a network sees it: images of one size with their targets, in batches.

    Every image is read and prepared once, if all of them fit the memory limit; otherwise they
    are read anew whenever they are asked for, always one batch ahead.

    Attributes:
        class_counts: how often each class occurs in the targets, (C,) float64, once loaded.
    """

    def __init__(self, data: Dataset, network: Preparing, memory_limit: int = MEMORY_LIMIT) -> None:
        self._data = data
        self._network = network
        size = network.image_size
        # A mask is a third of its image; other targets are a few numbers.
        self._fits = len(data) * 4 * size**2 <= memory_limit
        self._images = torch.empty(
            (len(data) if self._fits else 0, 3, size, size), dtype=torch.uint8
        )
        self._targets: list[Tensor] = []
        self.class_counts = torch.zeros(0, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int, /) -> Example:
        return (self._images[index], self._targets[index]) if self._fits else self._read(index)

    def load(self, progress: Callable[[float], None], stop: Callable[[], bool]) -> None:
        """Read all images, to count their classes and to keep those that fit.

        Raises:
            Stopped: ``stop`` said so.
        """
        counts: Tensor | None = None
        with ThreadPoolExecutor(LOADER_THREADS) as pool:
            try:
                for index, (image, target) in enumerate(pool.map(self._read, range(len(self)))):
                    if stop():
                        raise Stopped
                    found = self._network.count_classes(target).double()
                    counts = found if counts is None else counts + found
                    if self._fits:
                        self._images[index] = image
                        self._targets.append(target)
                    progress((index + 1) / len(self))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        if counts is not None:
            self.class_counts = counts

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Images (B, 3, S, S) uint8 and their targets for each tensor of indices in ``order``.

        ``load`` must have run.
        """
        if self._fits:
            for indices in order:
                yield self._images[indices], [self._targets[i] for i in indices.tolist()]
            return
        with ThreadPoolExecutor(LOADER_THREADS) as pool:
            ahead: list[Future[Example]] = []
            for indices in (*order, torch.empty(0, dtype=torch.int64)):
                ready = ahead
                ahead = [pool.submit(self._read, index) for index in indices.tolist()]
                if ready:
                    images, targets = zip(*(future.result() for future in ready), strict=True)
                    yield torch.stack(images), list(targets)

    def _read(self, index: int) -> Example:
        return self._network.prepare_example(*self._data[index])
