"""A limit on the memory that decoded images take at the same time, for all threads of a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock


class Memory:
    """Lets threads go on as long as what they take together stays within a limit.

    Whoever takes more than the whole limit goes on alone. Nobody is overtaken for good: while one
    thread waits for room, those after it wait for their turn.

    Args:
        limit: in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._turn = Lock()
        self._changed = Condition()

    @contextmanager
    def taking(self, wanted: int | None) -> Iterator[None]:
        """Hold so many bytes; None: all of them, to be alone."""
        wanted = self._limit if wanted is None else min(wanted, self._limit)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._taken + wanted <= self._limit)
            self._taken += wanted
        try:
            yield
        finally:
            with self._changed:
                self._taken -= wanted
                self._changed.notify_all()
