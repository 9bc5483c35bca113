"""The features that a frozen backbone computes once per image, small enough to keep."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from torch import Tensor

FEATURE_MEMORY = 2**29
"""Bytes of features kept in memory per backbone in use."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageFeatures:
    """The features of one prepared image, in half precision on the CPU.

    Attributes:
        maps: for classification one vector (D,); for dense tasks a map (channels, h, w) for each
            stride, from the finest to the coarsest.
        content: rows and columns of the prepared image that show the image; the rest is padding.
    """

    maps: tuple[Tensor, ...]
    content: tuple[int, int]

    @property
    def bytes(self) -> int:
        """Bytes of memory that they take."""
        return sum(each.nbytes for each in self.maps)


class KeptFeatures:
    """The most recently used features, by what they were computed from. Thread-safe.

    Args:
        limit: bytes that may be kept; the least recently used go first.
    """

    def __init__(self, limit: int = FEATURE_MEMORY) -> None:
        self._limit = limit
        self._bytes = 0
        self._kept: OrderedDict[bytes, ImageFeatures] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> ImageFeatures | None:
        """The features under this key, if they are kept."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: bytes, features: ImageFeatures) -> None:
        """Keep features, unless they alone exceed the limit."""
        if features.bytes > self._limit:
            return
        with self._lock:
            old = self._kept.pop(key, None)
            self._bytes += features.bytes - (old.bytes if old else 0)
            self._kept[key] = features
            while self._bytes > self._limit:
                self._bytes -= self._kept.popitem(last=False)[1].bytes


def image_key(image: Tensor, use: str) -> bytes:
    """A key for a prepared image, (3, S, S) uint8, and the use of its features."""
    digest = hashlib.blake2b(use.encode(), digest_size=16)
    digest.update(str(tuple(image.shape)).encode())
    digest.update(image.cpu().contiguous().numpy().data)
    return digest.digest()
