"""Patience with images that could be read before, and are away while they are needed again."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event

from torch import Tensor

from cdal.backend.errors import ImageError, LabelStudioError
from cdal.models import Stopped

LONGEST_S = 120.0
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 10.0


class Patience:
    """Reads images that are away for a moment, as while their host restarts.

    Many threads wait for the same host; once one has waited long enough, so have they all.

    Args:
        stop: whether the job that waits is to stop.
    """

    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self._stop = stop
        self._given_up = Event()

    def read(self, read: Callable[[], Tensor]) -> Tensor:
        """What is read, after some attempts if need be.

        Raises:
            ImageError, LabelStudioError: it cannot be had, or not for `LONGEST_S`.
            Stopped: the job is to stop.
        """
        began = time.monotonic()
        wait = FIRST_WAIT_S
        while True:
            try:
                return read()
            except (ImageError, LabelStudioError) as error:
                if not error.passes:
                    raise
                if time.monotonic() - began > LONGEST_S:
                    self._given_up.set()
                if self._is_over(wait):
                    raise
            wait = min(2 * wait, LONGEST_WAIT_S)

    def _is_over(self, wait: float) -> bool:
        """Wait so many seconds; whether that was in vain, since nobody waits any more."""
        until = time.monotonic() + wait
        while (left := until - time.monotonic()) > 0:
            if self._stop():
                raise Stopped
            if self._given_up.wait(min(left, 1.0)):
                return True
        return False
