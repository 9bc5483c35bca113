"""A rate limit: requests begin at once unless they come too often."""

from __future__ import annotations

import threading
import time


class Spacing:
    """Lets some requests begin at once, then one per so many seconds; separately for each key."""

    def __init__(self, at_once: int, seconds: float) -> None:
        self._at_once = at_once
        self._seconds = seconds
        self._lock = threading.Lock()
        self._due: dict[object, float] = {}

    def delay(self, key: object) -> float:
        """Seconds until the next request may begin; it is counted as beginning then."""
        clock = time.monotonic()
        with self._lock:
            # When the next one would be due without bursts; a burst may be ahead of that.
            due = max(self._due.get(key, clock), clock)
            self._due[key] = due + self._seconds
        return max(0.0, self._next(due) - clock)

    def permits(self, key: object) -> bool:
        """Whether a request may begin now; one that may not is not counted."""
        clock = time.monotonic()
        with self._lock:
            due = max(self._due.get(key, clock), clock)
            if self._next(due) > clock:
                return False
            self._due[key] = due + self._seconds
        return True

    def _next(self, due: float) -> float:
        """When the next request may begin, which would be due then without bursts."""
        return due - (self._at_once - 1) * self._seconds
