"""Steps of the demo on the console: a progress bar in a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

LINE_SECONDS = 5.0
"""How often a long step prints a line to a log."""


class Step:
    """A step in progress."""

    def __init__(self, console: Console, text: str, bar: tuple[Progress, TaskID] | None) -> None:
        self._console = console
        self._bar = bar
        self._printed = time.monotonic()
        self.text = text

    def show(self, text: str | None = None, share: float | None = None) -> None:
        """Show the current activity, and the completed share of the step, in [0, 1]."""
        self.text = text or self.text
        if self._bar is not None:
            progress, task = self._bar
            total = None if share is None else 1.0
            progress.update(task, description=self.text, total=total, completed=share or 0.0)
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self._printed = time.monotonic()
            done = "" if share is None else f" ({share:.0%})"
            self._console.print(f"  {self.text}{done}", highlight=False, soft_wrap=True)

    def show_job(self, status: Mapping[str, Any]) -> None:
        """Show which job the backend is running, given its status of a project."""
        running = [job for job in status["jobs"] if job["state"] == "running" and job["message"]]
        if running:
            self.show(running[0]["message"].capitalize(), running[0]["progress"])


@contextmanager
def step(console: Console, text: str) -> Iterator[Step]:
    """Show a step while the block runs."""
    if not console.is_terminal:
        console.print(f"{text} …", highlight=False, soft_wrap=True)
        yield Step(console, text, None)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(text, total=None)
        yield Step(console, text, (progress, task))
        progress.update(task, total=1.0, completed=1.0)
