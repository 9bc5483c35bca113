"""The worker that kills itself at a chosen point. For tests only.

A point is just before or after a commit, a rename, or a call that changes Label Studio; its name
says which. The worker records the points it passes, and without a fatal one it keeps running.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

import cdal.backend
from cdal.backend import commands
from cdal.backend.jobs import workers
from cdal.backend.label_studio.client import LabelStudioClient
from cdal.backend.loop import pool_scores
from cdal.backend.store import database
from support.forked import begin

BACKEND = Path(cdal.backend.__file__).parent
# Files of the backend that commit or rename for their callers: the callers name the point.
BENEATH = (Path(database.__file__), Path(pool_scores.__file__))
CHANGES = ("import_predictions", "serve", "show_queue")
"""The client's methods that change what people are served."""


def watch(passed: Path, fatal: str | None) -> None:
    """Record every point, and die at the fatal one."""

    def at(when: str, what: str) -> None:
        name = f"{when} {what} in {place()}"
        with passed.open("a") as file:
            file.write(f"{name}\n")
        if name == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(owner: type, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            at("before", name)
            answer = original(*arguments, **named)
            at("after", name)
            return answer

        setattr(owner, name, watched)

    wrap(Path, "rename")
    for method in CHANGES:
        wrap(LabelStudioClient, method)

    # What `report` writes does not matter and comes far too often.
    def counts(session: Session) -> bool:
        options = session.get_bind().get_execution_options()
        reads = options.get("sqlite_begin") == "DEFERRED" or options.get("postgresql_readonly")
        return not reads and not place().startswith("manager.report")

    for when in ("before", "after"):

        def committing(session: Session, when: str = when) -> None:
            if counts(session):
                at(when, "commit")

        event.listen(Session, f"{when}_commit", committing)


def place() -> str:
    """The backend's function that is running, and the kind of its job."""
    frame: FrameType | None = sys._getframe(1)
    where, kind = "", ""
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if not where and file.is_relative_to(BACKEND) and file not in BENEATH:
            where = f"{file.stem}.{frame.f_code.co_name}"
        if frame.f_code.co_name == "run_job" and frame.f_locals.get("job") is not None:
            kind = f" of {frame.f_locals['job'].kind}"
        frame = frame.f_back
    return where + kind


def worker(environment: Mapping[str, str], log: Path, passed: Path, fatal: str | None) -> None:
    """Run the worker until it dies; another finds that out within a second."""
    begin(environment, log)
    workers.BEAT_SECONDS = 1.0
    watch(passed, fatal)
    sys.exit(commands.worker())
