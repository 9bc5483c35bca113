"""Hosts of images that do not answer: after a few failures, their images are not waited for."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

FAILURES = 3
LEFT_ALONE_S = 15.0
_MOST = 1000


@dataclass(frozen=True, slots=True)
class _Silence:
    failures: int
    until: float
    reason: str


class Hosts:
    """Which hosts did not answer several times in a row; safe to use from many threads.

    A thousand images on a host that hangs would take hours otherwise.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._silent: OrderedDict[str, _Silence] = OrderedDict()

    def silent_because(self, host: str) -> str | None:
        """Why a host is left alone for now; None if it may be asked."""
        with self._lock:
            known = self._silent.get(host)
            if known is None or known.failures < FAILURES or time.monotonic() > known.until:
                return None
            return known.reason

    def note_silence(self, host: str, reason: str) -> None:
        """Note that a host did not answer."""
        with self._lock:
            known = self._silent.pop(host, None)
            failures = 1 if known is None else known.failures + 1
            self._silent[host] = _Silence(failures, time.monotonic() + LEFT_ALONE_S, reason)
            while len(self._silent) > _MOST:
                self._silent.popitem(last=False)

    def note_answer(self, host: str) -> None:
        """Note that a host answered."""
        with self._lock:
            self._silent.pop(host, None)
