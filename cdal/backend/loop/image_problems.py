"""Images that cannot be used: whether to wait for them, and the record of why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import bindparam, update

from cdal.backend.errors import ImageError, ImagesAwayError
from cdal.backend.loop.context import Context
from cdal.backend.store.events import note
from cdal.backend.store.tables import Task, seconds_since

CHUNK = 500
"""Problems written in one transaction: others want to write as well."""

PATIENCE = timedelta(hours=1)
"""How long a job waits for images that are away before it goes on without them."""


def refuse_if_away(
    work: Context, problems: Mapping[int, ImageError], requested: int, needs_one: bool = True
) -> None:
    """Refuse to go on if at least half of the images are away, as when their host is down.

    After an hour it is better to go on without them, unless the job needs at least one.

    Args:
        work: the job that needs the images.
        problems: why images cannot be used, by task id.
        requested: how many images the job needs in all.
        needs_one: whether nothing comes of the job without any image.

    Raises:
        ImagesAwayError: so many are away; the job is tried again later.
    """
    away = {task_id: error for task_id, error in problems.items() if error.passes}
    patient = seconds_since(work.job.created_at) < PATIENCE.total_seconds()
    none_is_left = needs_one and len(problems) == requested
    if away and (none_is_left or (patient and 2 * len(away) >= requested)):
        raise ImagesAwayError(away, requested)


def record_problems(work: Context, problems: Mapping[int, ImageError]) -> None:
    """Record which images cannot be used, and why; rounds leave them out.

    `recheck` looks at them again from time to time.
    """
    if not problems:
        return
    task_id, first = next(iter(problems.items()))
    text = f"{len(problems)} images cannot be used; task {task_id}: {first.reason}"
    with work.services.store.transaction() as session:
        note(session, work.project.id, text, "warning")
    record = (
        update(Task)
        .where(Task.project_id == work.project.id, Task.task_id == bindparam("task"))
        .values(image_problem=bindparam("reason"))
    )
    rows = [{"task": task_id, "reason": problem.reason} for task_id, problem in problems.items()]
    for start in range(0, len(rows), CHUNK):
        with work.services.store.transaction() as session:
            session.connection().execute(record, rows[start : start + CHUNK])
