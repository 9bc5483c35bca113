"""What an admin may do, from the API, the command line or the pages alike.

Each action checks, writes in one transaction what it does and who asked for it, and has the jobs
sent that follow. The worker, in another process, sees it within a second or two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from pydantic import Field
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from cdal.backend.errors import ActionError, ConfigError, LabelStudioError, SettingsError
from cdal.backend.jobs.kinds import KINDS, JobKind
from cdal.backend.loop.rounds import MADE_BY, begin_round, open_round, unfinished_round
from cdal.backend.project_config import ProjectConfig
from cdal.backend.reports.health import worker_view
from cdal.backend.reports.view import View
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.events import note
from cdal.backend.store.forgetting import forget_files, forget_rows
from cdal.backend.store.queries import IDS_PER_QUERY, chunks, find_job, find_project, waiting
from cdal.backend.store.tables import Job, ModelVersion, Pick, Project, Task, now
from cdal.backend.text import requester
from cdal.models import ModelError, load_network


class Done(View):
    """What happens now, in a sentence, and the job that does it, if one does."""

    text: str = Field(description="A sentence for people.")
    job: int | None = Field(None, description="The job that does it, if one does.")


def retrain(services: Services, project_id: int, by: str) -> Done:
    """Have a project's model trained on the labels of now; a paused project's, too.

    Raises:
        ActionError: there is no such project.
    """
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        before = _active(session, project, "train")
        job_id = services.jobs.request(session, project.id, "train", requester(by))
        if not any(job.id == job_id for job in before):
            note(session, project.id, f"Training requested by {requester(by)}")
        running = next((job.id for job in before if job.state == "running"), None)
    services.jobs.send_pending(project_id)
    if running is not None:
        return Done(
            text=f"Job {job_id} trains again when the training under way has ended.", job=job_id
        )
    return Done(text=f"Job {job_id} trains on the labels of now.", job=job_id)


def rescore(services: Services, project_id: int, by: str) -> Done:
    """Begin a new round with the serving model: score what it has not seen, select, queue.

    Raises:
        ActionError: there is no such project, or a round is being made already.
    """
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        busy = _active(session, project, *MADE_BY.values())
        making = unfinished_round(session, project)
        if making is not None and busy:
            raise ActionError(
                f"Round {making.number} is being made already: job {busy[0].id} ({busy[0].kind}) "
                f"{_doing(busy[0])}. Wait for it, or cancel that job first."
            )
        done = _begin_round(
            services,
            session,
            project,
            lambda number: f"Round {number} requested by {requester(by)}",
        )
    services.jobs.send_pending(project_id)
    return done


def roll_back(services: Services, project_id: int, number: int, by: str) -> Done:
    """Let another model version serve, an older one or a newer, and begin a round with it.

    The next training starts from it and is compared with it. One that is under way is kept but does
    not serve.

    Raises:
        ActionError: there is no such project or version, or it cannot serve.
    """
    with services.store.reading() as session:
        project = find_project(session, project_id)
        version = session.scalars(
            select(ModelVersion).filter_by(project_id=project.id, number=number)
        ).one_or_none()
    if version is None:
        raise ActionError(f"There is no model version {number} of project {project_id}.", 404)
    _check_network(services, project, version)
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        if version.id == project.serving_version_id:
            raise ActionError(f"Model version {number} serves already.")
        project.serving_version_id = version.id
        said = f"Model version {number} serves, by {requester(by)}"
        done = _begin_round(
            services, session, project, lambda new: f"{said}; round {new} begins with it"
        )
    services.jobs.send_pending(project_id)
    return done


def pause(services: Services, project_id: int, by: str) -> Done:
    """Let no training and no round begin by itself; what is under way ends first.

    Labels go on being noticed, and what is queued goes on being served and topped up.

    Raises:
        ActionError: there is no such project, or it is paused.
    """
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        if project.paused_at is not None:
            raise ActionError(f"Project {project_id} is paused already.")
        project.paused_at = now()
        note(session, project.id, f"Paused by {requester(by)}")
        under_way = _active(session, project, "train", *MADE_BY.values())
    ending = "".join(f" Job {job.id} ({job.kind}) {_doing(job)}." for job in under_way)
    return Done(text=f"Project {project_id} is paused: nothing new begins by itself.{ending}")


def resume(services: Services, project_id: int, by: str) -> Done:
    """End a pause, and look what has become due meanwhile.

    Raises:
        ActionError: there is no such project, or it is not paused.
    """
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        if project.paused_at is None:
            raise ActionError(f"Project {project_id} is not paused.")
        project.paused_at = None
        note(session, project.id, f"Resumed by {requester(by)}")
        job_id = services.jobs.request(session, project.id, "sync", requester(by))
    services.jobs.send_pending(project_id)
    return Done(text=f"Project {project_id} goes on; job {job_id} looks what is due.", job=job_id)


def forget(services: Services, project_id: int, by: str) -> Done:
    """Remove all that is kept of a project, its models too; what is in Label Studio stays.

    Raises:
        ActionError: there is no such project, or one of its jobs runs.
    """
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        busy = [job for job in _active(session, project, *KINDS) if job.state == "running"]
        if busy:
            raise ActionError(
                f"Job {busy[0].id} ({busy[0].kind}) of project {project_id} is under way. Wait for "
                "it, or cancel it first."
            )
        forget_rows(session, project_id)
        note(
            session, None, f'Project {project_id} ("{project.title}") forgotten by {requester(by)}'
        )
    forget_files(services.config, project_id)
    return Done(
        text=f"Project {project_id} is forgotten. What is in Label Studio stays; if this backend "
        "is still connected there, the project starts from scratch."
    )


def cancel(services: Services, job_id: int, by: str) -> Done:
    """End a job: at once where it waits, within seconds where it runs.

    What it would have changed stays as it was: the old model serves, the old queue is followed.

    Raises:
        ActionError: there is no such job, or it has ended.
    """
    with services.store.transaction() as session:
        job = find_job(session, job_id)
        if job.finished_at is not None:
            raise ActionError(f"Job {job_id} ({job.kind}) has ended already: it is {job.state}.")
        ended = services.jobs.cancel(session, job_id, requester(by))
        if not ended:
            note(
                session, job.project_id, f"Job {job_id} ({job.kind}): end asked by {requester(by)}"
            )
        alive = worker_view(session).alive
    if ended:
        return Done(text=f"Job {job_id} ({job.kind}) is cancelled.", job=job_id)
    when = "within seconds" if alive else "when a worker starts; none runs now"
    return Done(text=f"Job {job_id} ({job.kind}) stops {when}.", job=job_id)


def retry(services: Services, job_id: int, by: str) -> Done:
    """Have done again what a job that failed or was cancelled was to do.

    Raises:
        ActionError: there is no such job, or it did not fail.
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
            done = _begin_round(
                services, session, project, lambda number: f"{said}, as round {number}"
            )
        else:
            kind = MADE_BY[making.state] if job.kind in MADE_BY.values() and making else job.kind
            again = services.jobs.request(session, project.id, cast(JobKind, kind), requester(by))
            note(session, project.id, f"{said}, as job {again}")
            done = Done(
                text=f"Job {again} does what job {job_id} ({job.kind}) was to do.", job=again
            )
    services.jobs.send_pending(project.id)
    return done


def _begin_round(
    services: Services, session: Session, project: Project, event: Callable[[int], str]
) -> Done:
    """Begin a round, also in a paused project, and note the event, made from its number."""
    try:
        begun = begin_round(session, services.jobs, project.id)
    except ConfigError as error:
        raise ActionError(f"No round can begin: {error}") from None
    said = event(begun.round.number)
    note(session, project.id, said)
    return Done(text=f"{said}.", job=begun.job)


def _check_network(services: Services, project: Project, version: ModelVersion) -> None:
    """Refuse a version that cannot be loaded, or was made for another kind of labels."""
    folder = services.config.version_folder(project.id, version.number)
    try:
        network = load_network(folder, torch.device("cpu"))
        task = ProjectConfig.parse(project.labeling_config, project.extra_params).control.task
    except (ModelError, ConfigError) as error:
        reason = str(error).replace(str(services.config.data_folder), "the data folder")
        raise ActionError(f"Model version {version.number} cannot serve: {reason}") from None
    if network.task != task:
        raise ActionError(
            f"Model version {version.number} cannot serve: it was trained for {network.task}, and "
            f"the project's labels are for {task} now."
        )


def _active(session: Session, project: Project, *kinds: str) -> list[Job]:
    """A project's jobs of these kinds that wait or run, in the order in which they were asked."""
    query = (
        select(Job)
        .where(Job.project_id == project.id, Job.kind.in_(kinds))
        .where(Job.state.in_(("pending", "running")))
        .order_by(Job.id)
    )
    return list(session.scalars(query))


def _doing(job: Job) -> str:
    return "is under way" if job.state == "running" else "waits"


MOST = 500
"""Images that can be put first at once."""


def queue_next(services: Services, project_id: int, task_ids: Sequence[int], by: str) -> Done:
    """Put images at the front of the open round's queue, in this order.

    Those that are labelled, skipped, gone or cannot be used are left out.

    Raises:
        ActionError: there is no such project, no round is open, or none of the images waits.
    """
    wanted = list(dict.fromkeys(task_ids))
    who = requester(by)
    if len(wanted) > MOST:
        raise ActionError(f"At most {MOST} images can be queued next at once, not {len(wanted)}.")
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        current = open_round(session, project)
        if current is None:
            raise ActionError("No round is open; try again when the next one is queued.")
        picks = session.scalars(
            select(Pick).filter_by(round_id=current.id).order_by(Pick.rank)
        ).all()
        if any(pick.state == "sending" for pick in picks):
            raise ActionError("The queue is being written just now; try again in a moment.")
        there: set[int] = set()
        for ids in chunks(wanted, IDS_PER_QUERY):
            query = select(Task.task_id).where(waiting(project.id), Task.task_id.in_(ids))
            there.update(session.scalars(query))
        first = [task for task in wanted if task in there]
        if not first:
            raise ActionError(
                "None of these images can be queued: they are labelled, skipped or gone."
            )
        known = {pick.task_id: pick for pick in picks}
        order = [*first, *(pick.task_id for pick in picks if pick.task_id not in there)]
        rows = [
            {
                "round_id": current.id,
                "rank": rank,
                "task_id": task,
                "state": known[task].state if task in known else "ranked",
                "score": known[task].score if task in known else 0.0,
                "reason": {
                    **(known[task].reason if task in known else {}),
                    "chosen_by": who,
                }
                if task in there
                else known[task].reason,
            }
            for rank, task in enumerate(order)
        ]
        session.execute(delete(Pick).where(Pick.round_id == current.id))
        session.execute(insert(Pick), rows)
        # A queue version is written once: the new order goes out under a new one.
        current.state = "queueing"
        images = "1 image" if len(first) == 1 else f"{len(first)} images"
        note(session, project.id, f"Round {current.number}: {images} put first by {who}")
        job = services.jobs.request(session, project.id, "queue", who)
    services.jobs.send_pending(project_id)
    left_out = len(wanted) - len(first)
    more = f" {left_out} are labelled, skipped or gone, and were left out." if left_out else ""
    return Done(text=f"{images} come first as soon as the queue is written anew.{more}", job=job)


def change_settings(
    services: Services,
    project_id: int,
    settings: Mapping[str, Any],
    by: str,
    backend_url: str | None = None,
) -> Done:
    """Give a project these settings, and its defaults for the others.

    Label Studio holds them, on the project's Model page, and sends them with every set-up; so that
    is where they are written.

    Raises:
        ConfigError: one is unknown or impossible; the message names it.
        ActionError: there is no such project, or Label Studio did not take them.
    """
    with services.store.reading() as session:
        project = find_project(session, project_id)
    ProjectConfig.accept(project.labeling_config, dict(settings), services.config)
    try:
        services.client(project).write_settings(backend_url, settings)
    except LabelStudioError as error:
        raise ActionError(f"The settings are as they were. {error}", 502) from None
    changed = _changes(project.extra_params, settings)
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        project.extra_params = dict(settings)
        note(session, project.id, f"Settings changed by {by}: {changed}")
        services.jobs.request(session, project.id, "sync", by)
    services.jobs.send_pending(project_id)
    return Done(text=f"The settings are changed: {changed}.")


def known_settings(extra_params: object) -> dict[str, Any]:
    """The settings that differ from their defaults, by name; none where they cannot be read."""
    try:
        return ProjectSettings.parse(extra_params).model_dump(exclude_defaults=True)
    except SettingsError:
        return {}


def _changes(before: object, after: Mapping[str, Any]) -> str:
    """What changed, in words."""
    old = known_settings(before)
    names = [name for name in ProjectSettings.model_fields if old.get(name) != after.get(name)]
    words = [f"{name} {_word(old.get(name))} → {_word(after.get(name))}" for name in names]
    return ", ".join(words) or "nothing"


def _word(value: object) -> str:
    return "default" if value is None else str(value)
