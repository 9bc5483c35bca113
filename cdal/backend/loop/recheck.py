"""Recheck: look again at images that could not be read; they may have been fixed."""

from __future__ import annotations

import time
from datetime import timedelta

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from cdal.backend.errors import ImageError
from cdal.backend.jobs.manager import was_requested
from cdal.backend.loop.context import Context
from cdal.backend.store.queries import any_row
from cdal.backend.store.tables import Task

EVERY = timedelta(minutes=15)
MOST = 200
"""Images per job, drawn at random: those on a host that is away take long."""
SECONDS = 120.0


def run(work: Context) -> str:
    """Read some of the bad images; rounds may select those that can be read again."""
    with work.services.store.reading() as session:
        bad = select(Task.task_id, Task.image).where(_is_bad(work.project.id))
        items = [
            (t, image) for t, image in session.execute(bad.order_by(func.random()).limit(MOST))
        ]
    stream = work.services.images.stream(
        work.services.image_source(work.project), items, prepare=lambda _: None
    )
    deadline = time.monotonic() + SECONDS
    looked, fixed = 0, []
    for task_id, image in stream:
        looked += 1
        if not isinstance(image, ImageError):
            fixed.append(task_id)
        work.report(looked / len(items), f"{looked} of {len(items)} images looked at")
        if time.monotonic() > deadline:
            break
    if fixed:
        with work.services.store.transaction() as session:
            session.execute(
                update(Task)
                .where(Task.project_id == work.project.id, Task.task_id.in_(fixed))
                .values(image_problem=None)
            )
            work.request(session, "sync", "images that can be read again")
    return f"{len(fixed)} of {looked} images can be read again"


def request_if_due(work: Context, session: Session) -> None:
    """Request another look at bad images if there are any and some time has passed."""
    if not any_row(session, _is_bad(work.project.id)):
        return
    if was_requested(session, work.project.id, "recheck") > EVERY:
        work.request(session, "recheck", "images that could not be read")


def _is_bad(project_id: int) -> ColumnElement[bool]:
    return (Task.project_id == project_id) & Task.image_problem.is_not(None)
