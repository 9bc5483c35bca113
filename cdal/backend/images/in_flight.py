"""Images that kill the process: found by what was being decoded when it died.

A decoder may take more memory than the machine has, or crash. The process that starts next would
resume the same work and die again. So each process keeps a file that says what it is decoding. What
stands in the file of a process that is gone is suspect, and is decoded alone from then on; if a
process dies while it decodes a suspect alone, that image is never decoded again.

Images are known by their content: an image that is replaced is not suspect, and one image in two
tasks is found once.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock

from cdal.backend.errors import ImageError

log = logging.getLogger(__name__)

_DIGEST_BYTES = 32
_RUNNING = "running-"
_STARTING = "starting"

GUILTY = (
    "The backend was killed while it decoded this image and nothing else, so it is not decoded "
    "again: it takes too much memory, or its decoder fails on it."
)


class InFlight:
    """What this process is decoding, and what earlier ones died of. Safe to use from many threads.

    Args:
        folder: where both are kept; shared by all processes on one data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._free: list[int] = []
        self._slots = 0
        self._file: int | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # One process at a time: another would take a file that is not locked yet for that of a
            # process that is gone.
            with (folder / _STARTING).open("a") as starting:
                fcntl.flock(starting, fcntl.LOCK_EX)
                for file in folder.glob(f"{_RUNNING}*"):
                    self._judge(file)
                self._file, _ = tempfile.mkstemp(prefix=_RUNNING, dir=folder)
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            log.warning("Images that kill the process are not noticed: %s.", error.strerror)

    def close(self) -> None:
        """End as a process does that is not killed."""
        with self._lock:
            if self._file is not None:
                os.ftruncate(self._file, 0)
                os.close(self._file)
                self._file = None

    @staticmethod
    def digest(data: bytes) -> bytes:
        """What an image is known by."""
        return sha256(data).digest()

    def is_suspect(self, digest: bytes) -> bool:
        """Whether an image must be decoded alone.

        Raises:
            ImageError: it must not be decoded at all.
        """
        if self._mark(digest, "guilty").exists():
            raise ImageError(GUILTY)
        return self._mark(digest, "suspect").exists()

    @contextmanager
    def decoding(self, digest: bytes) -> Iterator[None]:
        """Note that an image is being decoded; if the process survives, it is not suspect."""
        slot = self._take_slot()
        self._write(slot, digest)
        try:
            yield
        finally:
            self._write(slot, bytes(_DIGEST_BYTES))
            with self._lock:
                self._free.append(slot)
            with suppress(OSError):  # also if it was refused: that killed nobody
                self._mark(digest, "suspect").unlink()

    def _take_slot(self) -> int:
        with self._lock:
            if self._free:
                return self._free.pop()
            self._slots += 1
            return self._slots - 1

    def _write(self, slot: int, digest: bytes) -> None:
        # What has been written outlives the process, though not the machine.
        with suppress(OSError), self._lock:
            if self._file is not None:  # its number may be another file's by now
                os.pwrite(self._file, digest, slot * _DIGEST_BYTES)

    def _judge(self, file: Path) -> None:
        """Mark what a process was decoding, if that process is gone."""
        with file.open("rb") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return  # it is alive
            content = opened.read()
            file.unlink(missing_ok=True)
        slots = [
            content[start : start + _DIGEST_BYTES]
            for start in range(0, len(content), _DIGEST_BYTES)
        ]
        digests = {slot for slot in slots if any(slot)}
        for digest in digests:
            suspect = self._mark(digest, "suspect")
            if len(digests) == 1 and suspect.exists():
                log.error("An image killed the process twice and is not decoded again.")
                suspect.rename(self._mark(digest, "guilty"))
            else:
                suspect.touch()

    def _mark(self, digest: bytes, kind: str) -> Path:
        return self._folder / f"{digest.hex()}.{kind}"
