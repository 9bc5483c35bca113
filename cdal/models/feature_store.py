"""The feature store: what frozen backbones made of images, kept on disk for all projects."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from threading import RLock
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cdal.models.features import ImageFeatures, VectorFeatures
from cdal.models.shards import (
    KEY_BYTES,
    SUFFIX,
    UNFINISHED,
    Columns,
    Shard,
    Shards,
    tensor_of_keys,
)

log = logging.getLogger(__name__)

SHARD_BYTES = 32 * 2**20
SHARD_IMAGES = 1024
FLUSH_SECONDS = 10.0
"""Features are written once there are so many bytes, images or seconds of work: a kill loses at
most these."""

ADDRESSES = "addresses"
"""The folder that says which content each address has."""

_HEADER_BYTES = 4096


Table = TypeVar("Table")


@dataclass(frozen=True, slots=True, eq=False)
class SeenImage:
    """The features of an image, with its original height and width."""

    features: ImageFeatures
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class SeenImages:
    """What is kept of some images.

    Attributes:
        rows: which of the requested images they are.
        sizes: their original heights and widths.
        features: their features.
    """

    rows: Sequence[int]
    sizes: Sequence[tuple[int, int]]
    features: Sequence[ImageFeatures]

    @classmethod
    def concatenate(cls, parts: Sequence[SeenImages]) -> SeenImages:
        """Join the images of several files."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            [row for part in parts for row in part.rows],
            [size for part in parts for size in part.sizes],
            _joined([part.features for part in parts]),
        )


class FeatureStore:
    """Features by extraction (which backbone, at which size) and by the content of the image file.

    They lie in files of many images each, which are written whole and never changed, in one folder
    per extraction. Besides, the store remembers which content each address had when it was last
    fetched, so that an image whose features are kept need not be fetched again. Threads and
    processes share a folder; what cannot be written is not kept.

    Args:
        folder: where they lie; made when first needed.
        limit_bytes: how much may be kept; the oldest files go first. 0 keeps nothing.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._most = min(SHARD_BYTES, limit_bytes // 8)
        self._lock = RLock()
        self._folders: dict[str, Shards] = {}
        self._new: dict[str, dict[bytes, SeenImage]] = {}
        self._new_bytes = 0
        self._new_addresses: dict[bytes, bytes] = {}
        self._written = time.monotonic()
        self._complained = False

    def at(self, extraction: str, addresses: Sequence[bytes]) -> SeenImages:
        """Those images that were last found at these addresses and are kept."""
        with self._lock:
            return self.get(extraction, self.contents_at(addresses))

    def contents_at(self, addresses: Sequence[bytes]) -> list[bytes]:
        """The contents that were last found at these addresses; empty where none is known."""
        with self._lock:
            return self._contents_of(addresses)

    def get(self, extraction: str, contents: Sequence[bytes]) -> SeenImages:
        """Those of the images with these contents that are kept."""
        with self._lock:
            new = self._new.get(extraction, {})
            folder = self._folder_of(extraction)
            parts: list[SeenImages] = []
            for shard, (which, rows) in folder.find(contents).items():
                table = self._open(folder, shard, _Images)
                if table is not None:
                    parts.append(SeenImages(which, table.sizes(rows), table.features(rows)))
            written = {row for part in parts for row in part.rows} if new else set()
            unwritten = [row for row, c in enumerate(contents) if c in new and row not in written]
            images = [new[contents[row]] for row in unwritten]
            if images or not parts:
                sizes = [image.size for image in images]
                parts.append(SeenImages(unwritten, sizes, [image.features for image in images]))
            return SeenImages.concatenate(parts)

    def put(self, extraction: str, content: bytes, image: SeenImage) -> None:
        """Keep an image; it is written together with others, see ``flush``."""
        size = image.features.bytes
        if size > self._limit // 8:
            return
        with self._lock:
            new = self._new.setdefault(extraction, {})
            if content not in new:
                new[content] = image
                self._new_bytes += size
            if (
                self._new_bytes >= self._most
                or len(new) >= SHARD_IMAGES
                or time.monotonic() - self._written > FLUSH_SECONDS
            ):
                self.flush()

    def note(self, address: bytes, content: bytes) -> None:
        """Remember the content that was found at an address."""
        with self._lock:
            self._new_addresses[address] = content

    def flush(self) -> None:
        """Write what is new. If that fails, it is logged once and not raised."""
        with self._lock:
            new, addresses = self._new, self._new_addresses
            self._new, self._new_addresses, self._new_bytes = {}, {}, 0
            self._written = time.monotonic()
            if not self._limit or not (new or addresses):
                return
            try:
                with self._alone():
                    for extraction, images in new.items():
                        self._write(extraction, _columns_of_images(images))
                    self._write_addresses(addresses)
            except OSError as error:
                if not self._complained:
                    self._complained = True
                    log.warning("Features of images are not kept: %s.", error.strerror or error)

    def _contents_of(self, addresses: Sequence[bytes]) -> list[bytes]:
        """The contents that these addresses had; b"" for those that are not known."""
        folder = self._folder_of(ADDRESSES)
        found = [b""] * len(addresses)
        for shard, (which, rows) in folder.find(addresses).items():
            table = self._open(folder, shard, _Contents)
            if table is not None:
                for number, row in zip(which, rows, strict=True):
                    found[number] = table[row]
        new = self._new_addresses
        if not new:
            return found
        return [new.get(a, content) for a, content in zip(addresses, found, strict=True)]

    def _open(self, folder: Shards, shard: Shard, kind: Callable[[Shard], Table]) -> Table | None:
        """A shard's table; None if it is damaged."""
        if shard.table is None:
            try:
                shard.table = kind(shard)
            except ValueError as error:
                folder.give_up(shard, error)
        found: Table | None = shard.table
        return found

    def _folder_of(self, name: str) -> Shards:
        return self._folders.setdefault(name, Shards(self._folder / name))

    def _write_addresses(self, addresses: Mapping[bytes, bytes]) -> None:
        """Write those whose content is not known yet, or has changed."""
        known = self._contents_of(list(addresses))
        changes = zip(addresses.items(), known, strict=True)
        pairs = [pair for pair, content in changes if pair[1] != content]
        if pairs:
            columns = {
                "keys": tensor_of_keys([address for address, _ in pairs]),
                "contents": tensor_of_keys([content for _, content in pairs]),
            }
            self._write(ADDRESSES, columns)

    def _write(self, name: str, columns: Columns) -> None:
        self._make_room(sum(each.nbytes for each in columns.values()) + _HEADER_BYTES)
        folder = self._folder_of(name)
        folder.write(columns)
        folder.merge(self._most)

    def _make_room(self, wanted: int) -> None:
        """Remove the oldest files until so many bytes more are within the limit."""
        files = sorted(self._folder.glob(f"*/*{SUFFIX}"), key=lambda file: file.name)
        sizes: dict[Path, int] = {}
        for file in files:
            with suppress(FileNotFoundError):  # another process found it damaged
                sizes[file] = file.stat().st_size
        # For a moment, a merge needs its files twice.
        too_many = sum(sizes.values()) + wanted + self._most - self._limit
        for file, size in sizes.items():
            if too_many <= 0:
                break
            file.unlink(missing_ok=True)
            too_many -= size

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process writes; the system gives the lock back even after a kill."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self._folder.glob(f"*/*{UNFINISHED}"):  # by a process that was killed
                left.unlink(missing_ok=True)
            yield


class _Contents:
    """The contents of addresses."""

    def __init__(self, shard: Shard) -> None:
        self._data = shard.column("contents").numpy().tobytes()

    def __getitem__(self, row: int) -> bytes:
        return self._data[row * KEY_BYTES : (row + 1) * KEY_BYTES]


class _Images:
    """Images, whose features are read in place.

    "sizes" (N, 4) int32 has an image's height and width, and the rows and columns of its content;
    "shapes" (N, L, 3) int32 those of its L maps, with zeros behind those of a vector; "data"
    float16 all values one after another.
    """

    def __init__(self, shard: Shard) -> None:
        self._sizes = shard.column("sizes").numpy()
        self._shapes = shard.column("shapes").numpy()
        self._data = shard.column("data")
        lengths = np.maximum(self._shapes, 1).prod(2, dtype=np.int64).sum(1)
        self._ends = lengths.cumsum()
        self._starts = self._ends - lengths

        first = self._shapes[:1]
        self._vectors: Tensor | None = None
        if (self._shapes == first).all() and first[0, 0, 1] == 0 and self._is_one_size():
            self._vectors = self._data.view(len(self._shapes), -1)

    def _is_one_size(self) -> bool:
        contents = self._sizes[:, 2:]
        return bool((contents == contents[:1]).all())

    def sizes(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Heights and widths of the images in these rows."""
        return [(height, width) for height, width in self._sizes[rows, :2].tolist()]

    def features(self, rows: Sequence[int]) -> Sequence[ImageFeatures]:
        """Their features."""
        if self._vectors is None:
            return [self._features(row) for row in rows]
        height, width = self._sizes[0, 2:].tolist()
        return VectorFeatures(self._vectors[rows], (height, width))

    def _features(self, row: int) -> ImageFeatures:
        maps: list[Tensor] = []
        start = int(self._starts[row])
        for dimensions in self._shapes[row].tolist():
            shape = [length for length in dimensions if length]
            end = start + prod(shape)
            maps.append(self._data[start:end].view(shape))
            start = end
        height, width = self._sizes[row, 2:].tolist()
        return ImageFeatures(tuple(maps), (height, width))


def _joined(parts: Sequence[Sequence[ImageFeatures]]) -> Sequence[ImageFeatures]:
    vectors = [part for part in parts if isinstance(part, VectorFeatures)]
    if vectors and len(vectors) == len(parts) and len({part.content for part in vectors}) == 1:
        return VectorFeatures(torch.cat([part.vectors for part in vectors]), vectors[0].content)
    return [features for part in parts for features in part]


def _columns_of_images(images: Mapping[bytes, SeenImage]) -> Columns:
    """See ``_Images``."""
    features = [image.features for image in images.values()]
    shapes = [[(*each.shape, 0, 0)[:3] for each in one.maps] for one in features]
    return {
        "keys": tensor_of_keys(list(images)),
        "sizes": torch.tensor(
            [(*image.size, *image.features.content) for image in images.values()],
            dtype=torch.int32,
        ),
        "shapes": torch.tensor(shapes, dtype=torch.int32),
        "data": torch.cat([each.reshape(-1) for one in features for each in one.maps]),
    }
