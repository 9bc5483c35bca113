"""Progress of a simulation and the time left, on standard error."""

from __future__ import annotations

import sys
import time
from typing import TextIO

REFRESH_SECONDS = 0.2
"""Least time between two changes of a terminal's progress line."""


class Progress:
    """Lines for finished work; in a terminal, a progress line for the work under way.

    Work is counted in any unit in which equal amounts take about the same time.

    Args:
        work: the total amount of work.
        stream: where to write; None for standard error.
    """

    def __init__(self, work: float, stream: TextIO | None = None) -> None:
        self._work = work
        self._stream = sys.stderr if stream is None else stream
        self._moves = self._stream.isatty()
        self._begun = time.monotonic()
        self._done = 0.0
        self._refreshed = 0.0
        self._beside = 0.0
        self._beside_left = 0.0

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._moves else f"{text}\n")
        self._stream.flush()

    def finished(
        self, text: str, work: float, beside: float = 0.0, beside_left: float = 0.0
    ) -> None:
        """Report finished work.

        Args:
            text: what was done.
            work: how much work it was.
            beside: seconds it took for what is not counted as work.
            beside_left: such seconds still to come until the end.
        """
        self._beside += beside
        self._beside_left = beside_left
        self._done += work
        self.say(f"{text} ({self._done / self._work:.0%}, {self._left(0)} left)")

    def under_way(self, text: str, share: float, work: float = 0.0) -> None:
        """Report the share of a piece of work that is done, in [0, 1]."""
        if self._moves and time.monotonic() - self._refreshed >= REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            self._stream.write(f"\r\x1b[K{text}: {share:.0%}, {self._left(share * work)} left")
            self._stream.flush()

    def _left(self, further: float) -> str:
        done = self._done + further
        if done <= 0:
            return "unknown time"
        passed = time.monotonic() - self._begun - self._beside
        return duration(passed / done * max(0.0, self._work - done) + self._beside_left)


def duration(seconds: float) -> str:
    """Seconds as a rough duration: "45 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
