"""The features that a frozen backbone computes once per image, and that are kept."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import overload

import torch
from torch import Tensor

FEATURE_MEMORY = 2**29
"""Bytes of features kept in memory per backbone in use."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageFeatures:
    """The features of one prepared image, in half precision on the CPU.

    Attributes:
        maps: for classification, one vector (D,); for dense tasks, one map (channels, h, w) per
            stride, from the finest to the coarsest.
        content: the rows and columns that the image fills in its square; the rest is padding.
    """

    maps: tuple[Tensor, ...]
    content: tuple[int, int]

    @property
    def bytes(self) -> int:
        """Their size in memory, in bytes."""
        return sum(each.nbytes for each in self.maps)


class VectorFeatures(Sequence[ImageFeatures]):
    """The features of N images, one vector each, as one tensor.

    Args:
        vectors: (N, D), in half precision on the CPU.
        content: what ``ImageFeatures.content`` is for each of them.
    """

    def __init__(self, vectors: Tensor, content: tuple[int, int]) -> None:
        self.vectors = vectors
        self.content = content

    def __len__(self) -> int:
        return len(self.vectors)

    @overload
    def __getitem__(self, index: int) -> ImageFeatures: ...

    @overload
    def __getitem__(self, index: slice) -> VectorFeatures: ...

    def __getitem__(self, index: int | slice) -> ImageFeatures | VectorFeatures:
        if isinstance(index, slice):
            return VectorFeatures(self.vectors[index], self.content)
        return ImageFeatures((self.vectors[index],), self.content)

    def take(self, rows: Sequence[int]) -> VectorFeatures:
        """The features of these rows, in this order."""
        return VectorFeatures(self.vectors[torch.tensor(rows, dtype=torch.int64)], self.content)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFeatures:
    """Labelled images that a backbone has seen: data for heads with the same extraction.

    Attributes:
        extraction: see ``HeadNetwork.extraction``.
        features: of each image.
        targets: of each image, prepared.
    """

    extraction: str
    features: Sequence[ImageFeatures]
    targets: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: Sequence[int]) -> LabelledFeatures:
        """The images of these rows, in this order."""
        return LabelledFeatures(
            self.extraction,
            features_of(self.features, rows),
            [self.targets[row] for row in rows],
        )

    def batches(
        self, order: Sequence[Tensor]
    ) -> Iterator[tuple[Sequence[ImageFeatures], list[Tensor]]]:
        """Features and targets for each tensor of indices in ``order``."""
        for indices in order:
            rows = indices.tolist()
            yield features_of(self.features, rows), [self.targets[row] for row in rows]


def features_of(features: Sequence[ImageFeatures], rows: Sequence[int]) -> Sequence[ImageFeatures]:
    """The features of these rows, in this order."""
    if isinstance(features, VectorFeatures):
        return features.take(rows)
    return [features[row] for row in rows]


class KeptFeatures:
    """The most recently used features, by the key of their image. Thread-safe.

    Args:
        limit: how many bytes to keep; the least recently used features are dropped first.
    """

    def __init__(self, limit: int = FEATURE_MEMORY) -> None:
        self._limit = limit
        self._bytes = 0
        self._kept: OrderedDict[bytes, ImageFeatures] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> ImageFeatures | None:
        """The features of the image with this key, or None."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: bytes, features: ImageFeatures) -> None:
        """Keep features, unless they exceed the limit on their own."""
        if features.bytes > self._limit:
            return
        with self._lock:
            old = self._kept.pop(key, None)
            self._bytes += features.bytes - (old.bytes if old else 0)
            self._kept[key] = features
            while self._bytes > self._limit:
                self._bytes -= self._kept.popitem(last=False)[1].bytes


def image_key(image: Tensor, use: str) -> bytes:
    """A key of 16 bytes for a prepared image, (3, S, S) uint8, and what features are used for."""
    digest = hashlib.blake2b(use.encode(), digest_size=16)
    digest.update(str(tuple(image.shape)).encode())
    digest.update(image.cpu().contiguous().numpy().data)
    return digest.digest()
