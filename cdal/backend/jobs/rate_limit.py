"""Spacing: what others ask for begins at once, unless they ask too often."""

from __future__ import annotations

import threading
import time


class Spacing:
    """At most so many at once, then one each so many seconds, for each key by itself."""

    def __init__(self, at_once: int, seconds: float) -> None:
        self._at_once = at_once
        self._seconds = seconds
        self._lock = threading.Lock()
        self._due: dict[object, float] = {}

    def delay(self, key: object) -> float:
        """Seconds until the next one may begin; it is taken to begin then."""
        clock = time.monotonic()
        with self._lock:
            # When the next would be due if they came one by one; the burst may be ahead of that.
            due = max(self._due.get(key, clock), clock)
            self._due[key] = due + self._seconds
        return max(0.0, due - (self._at_once - 1) * self._seconds - clock)
