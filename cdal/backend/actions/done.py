"""The outcome of an action, and the steps that several actions share."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.errors import ActionError, ConfigError
from cdal.backend.loop.rounds import begin_round
from cdal.backend.reports.view import View
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.tables import Job, Project


class Done(View):
    """What an action does, in a sentence, and the job that does the work, if any."""

    text: str = Field(description="A sentence for people.")
    job: int | None = Field(None, description="The job that does the work, if any.")


def start_round(
    services: Services, session: Session, project: Project, event: Callable[[str], str]
) -> Done:
    """Start a round or a new order of the open one, even in a paused project.

    `event` makes the event that is noted from what starts, as in "round 4".
    """
    try:
        begun = begin_round(session, services.jobs, project.id)
    except ConfigError as error:
        raise ActionError(f"No round can start: {error}") from None
    said = event(begun.name)
    said = said[0].upper() + said[1:]
    note(session, project.id, said)
    return Done(text=f"{said}.", job=begun.job)


def active_jobs(session: Session, project: Project, *kinds: str) -> list[Job]:
    """A project's pending and running jobs of these kinds, the oldest first."""
    query = (
        select(Job)
        .where(Job.project_id == project.id, Job.kind.in_(kinds))
        .where(Job.state.in_(("pending", "running")))
        .order_by(Job.id)
    )
    return list(session.scalars(query))


def doing(job: Job) -> str:
    """What an active job is doing, in words."""
    return "is running" if job.state == "running" else "is waiting"
