"""Hiccups of the database that a job outlives."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from cdal.backend.storage import STORAGE, storage_problem

log = logging.getLogger(__name__)

LONGEST_S = 300.0


class Hiccups:
    """Lets what is written or read here fail for a while, as when a database is restarted.

    It is for what a job can do without, such as telling its progress: a training of hours must not
    begin anew for it. What fails for longer than `LONGEST_S` is raised.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            self._since = None
        if not isinstance(error, STORAGE):
            return False
        clock = time.monotonic()
        if self._since is None:
            self._since = clock
            log.warning("The job goes on without it for now: %s", storage_problem(error))
        return clock - self._since < LONGEST_S
