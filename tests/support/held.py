"""A backend whose trainings go on until the test lets them end.

How fast a machine trains then decides no outcome. The worker waits after the first progress of a
training for as long as a file exists.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cdal.backend import commands
from cdal.backend.loop.context import Context
from support.forked import ForkedBackend, begin
from support.processes import wait_until

HOLD = "CDAL_TEST_HOLD"
"""Names the file; the worker puts one with the suffix .held beside it while a training waits."""


class HeldTrainings:
    """Whether trainings wait, shared with a worker by two files."""

    def __init__(self, folder: Path) -> None:
        self._hold = folder / "trainings"
        self.environment = {HOLD: str(self._hold)}

    @contextmanager
    def held(self) -> Iterator[None]:
        """No training ends in this block."""
        self._hold.touch()
        try:
            yield
        finally:
            self._hold.unlink()

    def wait_for_training(self) -> str:
        """Wait until one has begun and waits; returns the progress it reported."""
        held = self._hold.with_suffix(".held")
        wait_until("training that waits", held.exists)
        return held.read_text()


def worker(environment: Mapping[str, str], log: Path) -> None:
    """Run a worker whose trainings can be held."""
    begin(environment, log)
    _wait_in_trainings(environment)
    sys.exit(commands.worker())


class HeldBackend(ForkedBackend):
    """Web process and such a worker, on a data folder of their own."""

    def __init__(
        self, folder: Path, label_studio_url: str, token: str, port: int | None = None
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.trainings = HeldTrainings(folder)
        environment = self.trainings.environment
        super().__init__(folder, label_studio_url, token, environment, port, worker)


def _wait_in_trainings(environment: Mapping[str, str]) -> None:
    hold = Path(environment[HOLD])
    mark = hold.with_suffix(".held")
    report = Context.report

    def report_and_wait(self: Context, share: float, message: str) -> None:
        report(self, share, message)
        if self.job.kind != "train" or "epoch" not in message:
            return
        if not hold.exists():
            return
        unfinished = mark.with_suffix(".unfinished")
        unfinished.write_text(message)
        unfinished.rename(mark)
        try:
            while hold.exists():
                self.check_stop()  # it can be cancelled as any other
                time.sleep(0.05)
        finally:
            mark.unlink(missing_ok=True)

    Context.report = report_and_wait  # type: ignore[method-assign]
