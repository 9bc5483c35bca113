"""Images by task: located, fetched, cached and decoded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import BoundedSemaphore
from typing import TypeVar

from torch import Tensor
from urllib3.util import Url

from cdal.backend.addresses import AllowedHosts
from cdal.backend.errors import ImageError, LargerError
from cdal.backend.images.cache import DiskCache
from cdal.backend.images.decode import decode, decode_small, inspect, memory_to_decode
from cdal.backend.images.embedded import embedded_bytes, is_embedded
from cdal.backend.images.fetch import Fetcher
from cdal.backend.images.in_flight import InFlight
from cdal.backend.images.kept_file import KeptFile
from cdal.backend.images.memory import Memory
from cdal.backend.images.source import ImageSource

__all__ = ["AllowedHosts", "ImageError", "ImageSource", "ImageStore"]

LARGE_BYTES = 4 << 20
LARGE_AT_ONCE = 4
"""Files of more than `LARGE_BYTES` that are fetched and decoded at the same time, in all threads.

A file is held two or three times while it is cached and decoded, so hundreds of megabytes of them
would come together otherwise.
"""

Prepared = TypeVar("Prepared")


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A task's image as a file whose header was inspected; made by ``ImageStore``.

    Attributes:
        data: the file.
        digest: its hash.
    """

    data: bytes
    digest: bytes
    _memory: Memory
    _in_flight: InFlight
    _forget: Callable[[], None]

    def prepared(self, prepare: Callable[[Tensor], Prepared], side: int | None = None) -> Prepared:
        """Decode the image, and prepare it while its memory is accounted for.

        Args:
            prepare: What to do to the image, uint8 (3, H, W), RGB, upright.
            side: The longer side in pixels that is enough; None: all pixels.

        Raises:
            ImageError: it cannot be decoded; the next attempt fetches it again.
        """
        data, decoding = self.data, self._in_flight.decoding(self.digest)
        try:
            alone = self._in_flight.is_suspect(self.digest)
            with self._memory.taking(None if alone else memory_to_decode(data)), decoding:
                return prepare(decode(data) if side is None else decode_small(data, side))
        except ImageError:
            self._forget()
            raise


class ImageStore:
    """Images by task, from Label Studio and the hosts that are allowed, through a cache on disk.

    Safe to use from many threads. Files of this machine are never read, whatever a task says.

    Args:
        cache_folder: Where fetched files are kept; made when first needed.
        cache_bytes: How much may be kept; 0 keeps nothing.
        allowed_hosts: The hosts that images may come from, besides Label Studio.
        max_bytes: The largest file that is fetched.
        max_pixels: The largest image that is decoded.
        max_memory: Bytes of memory that images take while they are decoded and prepared, in all
            threads together. An image that takes more is decoded alone.
        timeout_s: Seconds within which a file must arrive, see `Fetcher`.
    """

    def __init__(
        self,
        cache_folder: Path,
        cache_bytes: int,
        allowed_hosts: AllowedHosts,
        max_bytes: int = 64 << 20,
        max_pixels: int = 80_000_000,
        max_memory: int = 512 << 20,
        timeout_s: float = 30.0,
    ) -> None:
        self._cache = DiskCache(cache_folder, cache_bytes)
        self._fetcher = Fetcher(allowed_hosts, timeout_s)
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._memory = Memory(max_memory)
        self._large_files = BoundedSemaphore(LARGE_AT_ONCE)
        self._in_flight = InFlight(cache_folder.parent / "decoding")

    def close(self) -> None:
        """Close the connections that are kept alive."""
        self._fetcher.close()
        self._in_flight.close()

    def remove_leftovers(self) -> None:
        """Remove what killed processes left half written in the cache."""
        self._cache.remove_leftovers()

    def read(self, source: ImageSource, task_id: int, value: object) -> Tensor:
        """Decode a task's image.

        Args:
            source: Where the task's project gets its images.
            task_id: The task.
            value: The image in the task's data.

        Returns:
            uint8 (3, H, W), RGB, upright.

        Raises:
            ImageError: it cannot be fetched or decoded.
        """
        return self.prepared(source, task_id, value, lambda image: image)

    def prepared(
        self,
        source: ImageSource,
        task_id: int,
        value: object,
        prepare: Callable[[Tensor], Prepared],
        side: int | None = None,
    ) -> Prepared:
        """Decode a task's image, and prepare it while its memory is accounted for.

        Args:
            source: Where the task's project gets its images.
            task_id: The task.
            value: The image in the task's data.
            prepare: What to do to the image, uint8 (3, H, W), such as resizing.
            side: The longer side in pixels that is enough; None: all pixels.

        Raises:
            ImageError: it cannot be fetched or decoded.
        """
        with self.opened(source, task_id, value) as file:
            return file.prepared(prepare, side)

    @contextmanager
    def opened(self, source: ImageSource, task_id: int, value: object) -> Iterator[ImageFile]:
        """A task's image, not decoded yet; at most `LARGE_AT_ONCE` large ones at the same time.

        Raises:
            ImageError: it cannot be fetched, is not an image or is too large.
        """
        with ExitStack() as held:
            try:
                data = self._file(source, task_id, value, min(LARGE_BYTES, self._max_bytes))
            except LargerError:
                if self._max_bytes <= LARGE_BYTES:
                    raise
                held.enter_context(self._large_files)
                data = self._file(source, task_id, value, self._max_bytes)
            # A damaged one may be fixed at its source.
            forget = partial(self._cache.remove, _key(source, task_id, value))
            digest = self._in_flight.digest(data)
            yield ImageFile(data, digest, self._memory, self._in_flight, forget)

    def _file(self, source: ImageSource, task_id: int, value: object, max_bytes: int) -> bytes:
        """A task's image as a file whose header was inspected."""
        if isinstance(value, str) and is_embedded(value):
            data = embedded_bytes(value, max_bytes)
            inspect(data, self._max_pixels)
            return data
        key = _key(source, task_id, value)
        if max_bytes < self._max_bytes and self._cache.size(key) > max_bytes:
            raise LargerError(max_bytes)
        entry = self._cache.get(key)
        kept = None if entry is None else KeptFile.unpacked(entry)
        if kept is not None and kept.is_fresh(time.time()):
            return kept.data
        # Only inspected files are cached, so a cached one need not be inspected again: for small
        # images that would cost as much as decoding them.
        fetched = self._fetched(source, source.locate(task_id, value), kept, max_bytes)
        self._cache.put(key, fetched.packed())
        return fetched.data

    def _fetched(
        self, source: ImageSource, address: Url, kept: KeptFile | None, max_bytes: int
    ) -> KeptFile:
        """Fetch a file, unless the kept one is still the file, or its host is away."""
        conditions = {} if kept is None else kept.conditions
        try:
            answer = self._fetcher.fetch(source, address, max_bytes, conditions)
        except ImageError as error:
            if kept is None or not error.passes:
                raise
            return kept
        if answer is None and kept is not None:
            return replace(kept, fetched_at=time.time())
        if answer is None:
            raise ImageError("The image's host says that it has not changed, though nothing asked.")
        inspect(answer.data, self._max_pixels)
        return KeptFile.of(answer.data, time.time(), answer.headers)

    def stream(
        self,
        source: ImageSource,
        items: Iterable[tuple[int, object]],
        prepare: Callable[[Tensor], Prepared],
        workers: int = 8,
    ) -> Iterator[tuple[int, Prepared | ImageError]]:
        """Read and decode many images in parallel, see ``stream_files``.

        Args:
            source: Where the tasks' project gets its images.
            items: For each image, its task and the image in the task's data.
            prepare: What the workers do to each image, uint8 (3, H, W), such as resizing.
            workers: Images that are read at the same time.
        """
        return self.stream_files(source, items, lambda file: file.prepared(prepare), workers)

    def stream_files(
        self,
        source: ImageSource,
        items: Iterable[tuple[int, object]],
        prepare: Callable[[ImageFile], Prepared],
        workers: int = 8,
    ) -> Iterator[tuple[int, Prepared | ImageError]]:
        """Read many images in parallel, a few ahead of the next one.

        Args:
            source: Where the tasks' project gets its images.
            items: For each image, its task and the image in the task's data.
            prepare: What the workers do to each file; an ``ImageError`` takes the result's place.
            workers: Images that are read at the same time. At most three times as many are held in
                memory.

        Yields:
            Each task with what was prepared or the error, in the order of the items.
        """

        def read(task_id: int, value: object) -> Prepared | ImageError:
            try:
                with self.opened(source, task_id, value) as file:
                    return prepare(file)
            except ImageError as error:
                return error

        pool = ThreadPoolExecutor(workers, thread_name_prefix="cdal-images")
        ahead: deque[tuple[int, Future[Prepared | ImageError]]] = deque()
        try:
            for task_id, value in items:
                ahead.append((task_id, pool.submit(read, task_id, value)))
                if len(ahead) > 3 * workers:
                    first, image = ahead.popleft()
                    yield first, image.result()
            while ahead:
                first, image = ahead.popleft()
                yield first, image.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


NOTED_S = 7 * 24 * 3600
"""What was found at an address counts for a week: the image may be replaced."""


def address_key(source: ImageSource, task_id: int, value: object) -> bytes:
    """A key for the address of a task's image: 16 bytes, others in each week.

    The weeks of different addresses begin at different moments, so that a pool need not be fetched
    all at once.

    The task is part of it: whether a project may read a file is Label Studio's decision, which a
    file fetched for another project's task must not bypass.
    """
    address = _address(source, task_id, value)
    week = (int(time.time()) + int.from_bytes(address[:4]) % NOTED_S) // NOTED_S
    return sha256(address + week.to_bytes(8)).digest()[:16]


def _key(source: ImageSource, task_id: int, value: object) -> str:
    """A file name for the cache, see ``address_key``."""
    return _address(source, task_id, value).hex()


def _address(source: ImageSource, task_id: int, value: object) -> bytes:
    # The number is of the format of what is cached.
    text = f"2\0{source.url}\0{task_id}\0{value}"
    return sha256(text.encode(errors="surrogatepass")).digest()
