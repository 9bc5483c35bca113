"""Rows by key in immutable files: each is written whole, read in place, and checked."""

from __future__ import annotations

import logging
import secrets
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

log = logging.getLogger(__name__)

KEY_BYTES = 16

SUFFIX = ".safetensors"
UNFINISHED = ".unfinished"

MERGED_AT = 16
"""Small files that are merged into one."""

_ROW_BITS = 24
_ROW_MASK = 2**_ROW_BITS - 1

_TICK_NS = 100_000_000
"""A folder that changed less than this ago may change again without a new time."""

Columns = Mapping[str, Tensor]
"""Tensors by name, whose rows belong together; "keys" is (N, ``KEY_BYTES``) uint8."""


class Shard:
    """A file with N rows. The system reads of it what is used, and may forget it again.

    Attributes:
        file, name: the name says when it was written.
        keys: the keys of the rows.
        table: what a reader makes of the columns, once it has done so.

    Raises:
        ValueError: the file is damaged.
        OSError: it is gone.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.name = file.name
        try:
            with safe_open(file, "pt") as opened:
                self._sums = dict(opened.metadata() or {})
                self._unchecked = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        self._checked: dict[str, Tensor] = {}
        self.table: Any = None
        keys = self.column("keys")
        if keys.ndim != 2 or keys.shape[1] != KEY_BYTES:
            raise ValueError("its keys have another length")
        self.keys = list_of_keys(keys)

    def column(self, name: str) -> Tensor:
        """One of the columns.

        Raises:
            ValueError: it is damaged, or there is none of this name.
        """
        found = self._checked.get(name)
        if found is None:
            if name not in self._unchecked:
                raise ValueError(f"it has no {name}")
            found = self._unchecked[name]
            if self._sums.get(name) != checksum(found):
                raise ValueError(f"its {name} have another checksum")
            self._checked[name] = found
        return found

    def columns(self) -> Columns:
        """All columns; raises what ``column`` raises."""
        return {name: self.column(name) for name in self._unchecked}


class Shards:
    """A folder of shards, as one thread sees it; other processes may write to it, too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = -1
        self._shards: dict[str, Shard] = {}
        self._numbers: dict[int, Shard] = {}
        # A shard's number and a row in one int: a million tuples would take a second to make, and
        # as long whenever garbage is collected.
        self._places: dict[bytes, int] = {}

    def find(self, keys: Sequence[bytes]) -> dict[Shard, tuple[list[int], list[int]]]:
        """Where the rows of these keys are.

        Returns:
            For each shard that has some of them, which of the keys, and their rows.
        """
        self._look()
        found: dict[int, tuple[list[int], list[int]]] = {}
        for number, place in enumerate(map(self._places.get, keys)):
            if place is not None:
                shard = place >> _ROW_BITS
                if shard not in found:
                    found[shard] = [], []
                which, rows = found[shard]
                which.append(number)
                rows.append(place & _ROW_MASK)
        return {self._numbers[shard]: places for shard, places in found.items()}

    def give_up(self, shard: Shard, why: Exception) -> None:
        """Remove a damaged file: its rows are computed again."""
        self._remove(shard.file, why)
        self._changed = -1

    def write(self, columns: Columns, stamp: str | None = None) -> None:
        """Add a file: all of it or, after a kill, nothing.

        It is not flushed to the disk: what a power loss damages is found by its checksum.

        Args:
            columns: of the new rows.
            stamp: stands for the time at which they were computed; None: now.

        Raises:
            OSError: it cannot be written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{stamp or f'{time.time_ns():020}'}-{secrets.token_hex(4)}"
        unfinished = self._folder / f"{name}{UNFINISHED}"
        sums = {column: checksum(values) for column, values in columns.items()}
        try:
            save_file(dict(columns), unfinished, sums)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        unfinished.rename(self._folder / f"{name}{SUFFIX}")

    def merge(self, most_bytes: int) -> None:
        """Merge the oldest small files once there are many; only one process may do so at a time.

        After a kill before the end, rows are there twice, which does no harm.

        Args:
            most_bytes: of a merged file; a quarter of it is small.
        """
        self._look()
        sizes = {}
        for _, shard in sorted(self._shards.items()):
            with suppress(FileNotFoundError):  # another process found it damaged
                sizes[shard] = shard.file.stat().st_size
        small = [shard for shard, size in sizes.items() if size < most_bytes / 4]
        if len(small) < MERGED_AT:
            return
        merged: list[Shard] = []
        parts: list[Columns] = []
        for shard in small:
            if sum(sizes[each] for each in (*merged, shard)) > most_bytes:
                break
            try:
                parts.append(shard.columns())
                merged.append(shard)
            except ValueError as error:
                self.give_up(shard, error)
        if len(merged) > 1:
            joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            self.write(joined, merged[-1].name.partition("-")[0])
            for shard in merged:
                shard.file.unlink(missing_ok=True)

    def _look(self) -> None:
        """Notice the files that came and went since the last look."""
        try:
            changed = self._folder.stat().st_mtime_ns
        except OSError:
            changed = 0
        if changed == self._changed:
            return
        self._changed = changed if time.time_ns() - changed > _TICK_NS else -1
        files = {file.name: file for file in self._folder.glob(f"*{SUFFIX}")}
        gone = self._shards.keys() - files.keys()
        if gone:
            self._shards = {n: shard for n, shard in self._shards.items() if n not in gone}
            numbers = {n for n, shard in self._numbers.items() if shard.name in gone}
            self._numbers = {n: s for n, s in self._numbers.items() if n not in numbers}
            self._places = {
                key: place
                for key, place in self._places.items()
                if place >> _ROW_BITS not in numbers
            }
        for name in sorted(files.keys() - self._shards.keys()):
            try:
                self._add(Shard(files[name]))
            except ValueError as error:
                self._remove(files[name], error)
            except OSError:  # another process has removed it
                continue

    def _add(self, shard: Shard) -> None:
        number = 1 + max(self._numbers, default=0)
        start = number << _ROW_BITS
        places = dict(zip(shard.keys, range(start, start + len(shard.keys)), strict=True))
        if self._shards and shard.name < max(self._shards):
            # Older rows that were merged just now: newer ones count.
            names = {n: known.name for n, known in self._numbers.items()}
            for key in places.keys() & self._places.keys():
                if names[self._places[key] >> _ROW_BITS] > shard.name:
                    del places[key]
        self._places.update(places)
        self._shards[shard.name] = self._numbers[number] = shard

    def _remove(self, file: Path, why: Exception) -> None:
        log.warning("%s is damaged and was removed: %s.", file, why)
        file.unlink(missing_ok=True)


def list_of_keys(keys: Tensor) -> list[bytes]:
    """Rows of (N, ``KEY_BYTES``) uint8 as bytes."""
    data = keys.numpy().tobytes()
    return [data[start : start + KEY_BYTES] for start in range(0, len(data), KEY_BYTES)]


def tensor_of_keys(keys: Sequence[bytes]) -> Tensor:
    """N keys as (N, ``KEY_BYTES``) uint8."""
    data = bytearray(b"".join(keys))
    return torch.frombuffer(data, dtype=torch.uint8).view(len(keys), KEY_BYTES)


def checksum(values: Tensor) -> str:
    """A CRC-32, to find what a disk has damaged."""
    return f"{zlib.crc32(values.contiguous().view(-1).view(torch.uint8).numpy().data):08x}"
