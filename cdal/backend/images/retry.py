"""Waiting for images that could be read before and are temporarily unavailable."""

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
    """Reads images whose host is briefly unavailable, as when it restarts.

    Many threads wait for the same host; when one gives up, all do.

    Args:
        stop: whether the waiting job is to stop.
    """

    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self._stop = stop
        self._given_up = Event()

    def read(self, read: Callable[[], Tensor]) -> Tensor:
        """Read an image, with several attempts if necessary.

        Raises:
            ImageError, LabelStudioError: it cannot be read, or not within `LONGEST_S`.
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
        """Wait for this many seconds; returns whether the wait is over for all."""
        until = time.monotonic() + wait
        while (left := until - time.monotonic()) > 0:
            if self._stop():
                raise Stopped
            if self._given_up.wait(min(left, 1.0)):
                return True
        return False
