"""Actions on a job: cancel, and try again."""

from __future__ import annotations

from typing import cast

from cdal.backend.actions.done import Done, start_round
from cdal.backend.errors import ActionError
from cdal.backend.jobs.kinds import JobKind
from cdal.backend.loop.export import want_again
from cdal.backend.loop.rounds import MADE_BY, unfinished_round
from cdal.backend.reports.health import worker_view
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.queries import find_job, find_project
from cdal.backend.text import requester


def cancel(services: Services, job_id: int, by: str) -> Done:
    """Cancel a job: at once if it is waiting, within seconds if it is running.

    Nothing that it would have changed changes: the old model and the old queue stay.

    Raises:
        ActionError: there is no such job, or it has ended.
    """
    with services.store.transaction() as session:
        job = find_job(session, job_id)
        if job.finished_at is not None:
            raise ActionError(f"Job {job_id} ({job.kind}) has already ended: it is {job.state}.")
        ended = services.jobs.cancel(session, job_id, requester(by))
        if not ended:
            note(
                session,
                job.project_id,
                f"Job {job_id} ({job.kind}): cancellation requested by {requester(by)}",
            )
        alive = worker_view(session).alive
    if ended:
        return Done(text=f"Job {job_id} ({job.kind}) is cancelled.", job=job_id)
    when = "within seconds" if alive else "when a worker starts; none is running"
    return Done(text=f"Job {job_id} ({job.kind}) stops {when}.", job=job_id)


def retry(services: Services, job_id: int, by: str) -> Done:
    """Run a failed or cancelled job again.

    Raises:
        ActionError: there is no such job, or it neither failed nor was cancelled.
    """
    with services.store.transaction() as session:
        job = find_job(session, job_id)
        if job.state not in ("failed", "cancelled"):
            raise ActionError(
                f"Job {job_id} ({job.kind}) is {job.state}; only a job that failed or was "
                "cancelled can be tried again."
            )
        project = find_project(session, job.project_id)
        making = unfinished_round(session, project)
        said = f"Job {job_id} ({job.kind}) tried again by {requester(by)}"
        if job.kind in MADE_BY.values() and making is None:  # its round was given up
            done = start_round(services, session, project, lambda name: f"{said}, as {name}")
        else:
            kind = MADE_BY[making.state] if job.kind in MADE_BY.values() and making else job.kind
            if kind == "export":
                want_again(session, project.id)
            again = services.jobs.request(session, project.id, cast(JobKind, kind), requester(by))
            note(session, project.id, f"{said}, as job {again}")
            done = Done(text=f"Job {again} repeats job {job_id} ({job.kind}).", job=again)
    services.jobs.send_pending(project.id)
    return done
