"""A bounded folder of fetched files, shared by the web process and the worker."""

from __future__ import annotations

import logging
import os
import tempfile
import time
import zlib
from contextlib import suppress
from pathlib import Path
from threading import Lock

_log = logging.getLogger(__name__)

_CHECKSUM_BYTES = 4
_TEMPORARY = "tmp-"
_TEMPORARY_LIFE_S = 60.0


class DiskCache:
    """Bytes by key, in files; the least recently used go first when the folder fills up.

    A file holds a CRC-32 and the bytes, and its modification time is when it was last used. It is
    always put in place whole, so nothing else has to be recorded: processes share a folder without
    communicating, and the cache survives a restart. A damaged file counts as missing.

    After writing a twentieth of the limit, a process looks through the folder and reduces it to
    80 % of the limit if more than 90 % is in use, so two processes together stay within the limit.
    Anything larger than a twentieth is not cached.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = os.fspath(folder)
        self._limit = limit_bytes
        self._stride = limit_bytes // 20
        self._room = 0  # how much may still be written before the next look
        self._lock = Lock()
        self._complained = False

    def get(self, key: str) -> bytes | None:
        """The bytes cached under a key (hexadecimal digits), or None."""
        path = self._path(key)
        try:
            # os.open, since a file object costs as much again as reading a small image.
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        try:
            entry = os.read(descriptor, os.fstat(descriptor).st_size)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        data = entry[_CHECKSUM_BYTES:]
        if not data or zlib.crc32(data) != int.from_bytes(entry[:_CHECKSUM_BYTES]):
            self.remove(key)
            return None
        with suppress(OSError):
            os.utime(path)
        return data

    def size(self, key: str) -> int:
        """The number of bytes cached under a key; 0 without any."""
        try:
            return os.stat(self._path(key)).st_size - _CHECKSUM_BYTES  # noqa: PTH116 - as in get
        except OSError:
            return 0

    def put(self, key: str, data: bytes) -> None:
        """Cache bytes under a key. A folder that cannot be written is logged once, not raised."""
        size = len(data) + _CHECKSUM_BYTES
        if size > self._stride:
            return
        try:
            with self._lock:
                if size > self._room:
                    self._sweep()
                    self._room = self._stride
                self._room -= size
            self._write(Path(self._path(key)), data)
        except OSError as error:
            if not self._complained:
                self._complained = True
                _log.warning("Images are not cached: %s.", error.strerror)

    def remove(self, key: str) -> None:
        with suppress(OSError):
            os.unlink(self._path(key))  # noqa: PTH108 - a plain string, as in get

    def remove_leftovers(self) -> None:
        """Remove files that killed processes left unfinished; those being written are younger."""
        for path in Path(self._folder).glob(f"*/{_TEMPORARY}*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _TEMPORARY_LIFE_S:
                    path.unlink()

    def _path(self, key: str) -> str:
        return f"{self._folder}/{key[:2]}/{key}"

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(zlib.crc32(data).to_bytes(_CHECKSUM_BYTES))
                file.write(data)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _sweep(self) -> None:
        """Remove unfinished files and, if the folder is full, the least recently used ones."""
        now = time.time()
        entries: list[tuple[float, int, str]] = []
        for path in Path(self._folder).glob("*/*"):
            with suppress(FileNotFoundError):  # the other process has removed it
                status = path.stat()
                if path.name.startswith(_TEMPORARY) and now - status.st_mtime > _TEMPORARY_LIFE_S:
                    path.unlink()
                else:
                    entries.append((status.st_mtime, status.st_size, str(path)))
        used = sum(size for _, size, _ in entries)
        if used <= self._limit * 0.9:
            return
        for _, size, name in sorted(entries):
            if used <= self._limit * 0.8:
                break
            Path(name).unlink(missing_ok=True)
            used -= size
