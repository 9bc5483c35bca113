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


class Dataset(Protocol):
    """Labelled images. It is read from several threads at once."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        """An image, (3, H, W) uint8, and the index of its class."""
        ...


class PreparedImages:
    """A data set as a network sees it: images of one size, in batches.

    Every image is read and prepared once, if all of them fit the memory limit; otherwise they
    are read anew whenever they are asked for, always one batch ahead.
    """

    def __init__(
        self,
        data: Dataset,
        prepare: Callable[[Tensor], Tensor],
        image_size: int,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        self._data = data
        self._prepare = prepare
        self._fits = len(data) * 3 * image_size**2 <= memory_limit
        self._images = torch.empty(
            (len(data) if self._fits else 0, 3, image_size, image_size), dtype=torch.uint8
        )
        self.targets = torch.empty(len(data), dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        image = self._images[index] if self._fits else self._read(index)[0]
        return image, int(self.targets[index])

    def load(self, progress: Callable[[float], None], stop: Callable[[], bool]) -> None:
        """Read all images, to know their targets and to keep those that fit.

        Raises:
            Stopped: ``stop`` said so.
        """
        with ThreadPoolExecutor(LOADER_THREADS) as pool:
            try:
                for index, (image, target) in enumerate(pool.map(self._read, range(len(self)))):
                    if stop():
                        raise Stopped
                    self.targets[index] = target
                    if self._fits:
                        self._images[index] = image
                    progress((index + 1) / len(self))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (B, 3, S, S) uint8 and targets (B,) int64 for each tensor of indices in ``order``.

        ``load`` must have run.
        """
        if self._fits:
            for indices in order:
                yield self._images[indices], self.targets[indices]
            return
        with ThreadPoolExecutor(LOADER_THREADS) as pool:
            ahead: list[Future[tuple[Tensor, int]]] = []
            for indices in (*order, torch.empty(0, dtype=torch.int64)):
                ready = ahead
                ahead = [pool.submit(self._read, index) for index in indices.tolist()]
                if ready:
                    images, targets = zip(*(future.result() for future in ready), strict=True)
                    yield torch.stack(images), torch.tensor(targets)

    def _read(self, index: int) -> tuple[Tensor, int]:
        image, target = self._data[index]
        return self._prepare(image), target
