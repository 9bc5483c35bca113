"""Label Studio servers that do not answer: their jobs wait, so that those of others go on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock

FIRST_WAIT_S, LONGEST_WAIT_S = 5.0, 300.0


@dataclass(frozen=True, slots=True)
class Away:
    """A server that did not answer.

    Attributes:
        reason: one sentence for people.
        failures: jobs that failed because of it, one after another.
        until: by the monotonic clock; not asked before.
    """

    reason: str
    failures: int
    until: float

    @property
    def wait_s(self) -> float:
        """Seconds until it may be asked again; 0 if it may be now."""
        return max(0.0, self.until - time.monotonic())


class Servers:
    """Which servers are away, for all jobs of a worker; safe to use from many threads.

    A job that no server answers takes its thread for a minute. So after the first such job no other
    is begun for that server for some time, longer and longer; then one at a time tries again.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._away: dict[str, Away] = {}

    def find_away(self, url: str) -> Away | None:
        """The server's failure; None if it answered last, or was never asked."""
        with self._lock:
            return self._away.get(url)

    def all_away(self) -> set[str]:
        """The addresses of all that did not answer last."""
        with self._lock:
            return set(self._away)

    def note_failure(self, url: str, reason: str) -> None:
        """Note that a server did not answer a job."""
        with self._lock:
            known = self._away.get(url)
            failures = 1 if known is None else known.failures + 1
            wait = min(FIRST_WAIT_S * 2 ** min(failures - 1, 10), LONGEST_WAIT_S)
            self._away[url] = Away(reason, failures, time.monotonic() + wait)

    def note_answer(self, url: str) -> None:
        """Note that a server answered a job."""
        with self._lock:
            self._away.pop(url, None)
