"""Whether a running job is to stop."""

from __future__ import annotations

import time
from collections.abc import Callable

from cdal.backend.jobs import Jobs
from cdal.backend.work.hiccups import Hiccups

LOOK_SECONDS = 0.5
"""How often the store is asked whether somebody, in whatever process, cancelled the job."""


class Watch:
    """Asked between the steps of a job: true once the worker ends or the job is cancelled."""

    def __init__(self, jobs: Jobs, job_id: int, worker_ends: Callable[[], bool]) -> None:
        self._jobs = jobs
        self._job_id = job_id
        self._worker_ends = worker_ends
        self._cancelled = False
        self._looked = time.monotonic()
        self._hiccups = Hiccups()

    def __call__(self) -> bool:
        if self._cancelled or self._worker_ends():
            return True
        clock = time.monotonic()
        if clock - self._looked >= LOOK_SECONDS:
            self._looked = clock
            with self._hiccups:
                self._cancelled = self._jobs.is_cancelled(self._job_id)
        return self._cancelled
