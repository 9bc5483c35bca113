"""Actions on a project: train, rescore, roll back, pause, resume, forget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from sqlalchemy import select

from cdal.backend.actions.done import Done, active_jobs, doing, start_round
from cdal.backend.annotations.control import Control
from cdal.backend.errors import ActionError, ConfigError
from cdal.backend.jobs.kinds import KINDS
from cdal.backend.loop.rounds import MADE_BY, unfinished_round
from cdal.backend.loop.serving import serve, serving_of
from cdal.backend.project_config import ProjectConfig, paired
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.forgetting import forget_files, forget_rows
from cdal.backend.store.queries import find_project
from cdal.backend.store.tables import ModelVersion, Project, now
from cdal.backend.text import requester
from cdal.models import ModelError, load_network


def retrain(services: Services, project_id: int, by: str) -> Done:
    """Train a project's model on its current labels, even if the project is paused.

    Raises:
        ActionError: there is no such project.
    """
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        before = active_jobs(session, project, "train")
        job_id = services.jobs.request(session, project.id, "train", requester(by))
        if not any(job.id == job_id for job in before):
            note(session, project.id, f"Training requested by {requester(by)}")
        running = next((job.id for job in before if job.state == "running"), None)
    services.jobs.send_pending(project_id)
    if running is not None:
        return Done(
            text=f"Job {job_id} trains again when the running training has ended.", job=job_id
        )
    return Done(text=f"Job {job_id} trains on the current labels.", job=job_id)


def rescore(services: Services, project_id: int, by: str) -> Done:
    """Rank the pool again with the serving model: score what it has not seen, select, queue.

    The open round continues in the new order; if it is finished, the next one starts.

    Raises:
        ActionError: there is no such project, or a round is already being prepared.
    """
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        busy = active_jobs(session, project, *MADE_BY.values())
        making = unfinished_round(session, project)
        if making is not None and busy:
            raise ActionError(
                f"An order of round {making.number} is already being prepared: job {busy[0].id} "
                f"({busy[0].kind}) {doing(busy[0])}. Wait for it, or cancel it first."
            )
        done = start_round(
            services,
            session,
            project,
            lambda name: f"{name} requested by {requester(by)}",
        )
    services.jobs.send_pending(project_id)
    return done


def roll_back(services: Services, project_id: int, number: int, by: str) -> Done:
    """Let another model version serve, older or newer, and rank the pool with it.

    The next training starts from it and is compared with it. A running training is kept but does
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
    control, controls = _control_of(services, project, version)
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        version = session.get_one(ModelVersion, version.id)
        if serving_of(session, project.id, controls).get(control.from_name) is version:
            raise ActionError(f"Model version {number} already serves.")
        if not services.config.version_folder(project.id, number).exists():
            raise ActionError(f"Model version {number} cannot serve: its weights were just pruned.")
        serve(session, version, control, controls)
        said = f"Model version {number} serves, by {requester(by)}"
        done = start_round(
            services, session, project, lambda name: f"{said}; {name} starts with it"
        )
    services.jobs.send_pending(project_id)
    return done


def pause(services: Services, project_id: int, by: str) -> Done:
    """Start no training and no round automatically; running jobs finish.

    New labels are still noticed, and the queue is still served and topped up.

    Raises:
        ActionError: there is no such project, or it is paused.
    """
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        if project.paused_at is not None:
            raise ActionError(f"Project {project_id} is already paused.")
        project.paused_at = now()
        note(session, project.id, f"Paused by {requester(by)}")
        under_way = active_jobs(session, project, "train", *MADE_BY.values())
    ending = "".join(f" Job {job.id} ({job.kind}) {doing(job)}." for job in under_way)
    return Done(text=f"Project {project_id} is paused: nothing new starts automatically.{ending}")


def resume(services: Services, project_id: int, by: str) -> Done:
    """End a pause, and start what has become due.

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
    return Done(
        text=f"Project {project_id} is resumed; job {job_id} checks what is due.", job=job_id
    )


def forget(services: Services, project_id: int, by: str) -> Done:
    """Delete everything kept of a project, including its models; nothing changes in Label Studio.

    Raises:
        ActionError: there is no such project, or one of its jobs is running.
    """
    with services.store.transaction() as session:
        project = find_project(session, project_id)
        busy = [job for job in active_jobs(session, project, *KINDS) if job.state == "running"]
        if busy:
            raise ActionError(
                f"Job {busy[0].id} ({busy[0].kind}) of project {project_id} is running. Wait for "
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


def _control_of(
    services: Services, project: Project, version: ModelVersion
) -> tuple[Control, Sequence[Control]]:
    """The control that a version would serve, and all of the project.

    Raises:
        ActionError: the version cannot be loaded, or was trained for another task.
    """
    folder = services.config.version_folder(project.id, version.number)
    try:
        network = load_network(
            folder, torch.device("cpu"), sources=replace(services.weight_sources, downloads=False)
        )
        controls = ProjectConfig.parse(project.labeling_config, project.extra_params).controls
    except (ModelError, ConfigError) as error:
        reason = str(error).replace(str(services.config.data_folder), "the data folder")
        raise ActionError(f"Model version {version.number} cannot serve: {reason}") from None
    control = paired({version.control: version.classes}, controls)[version.control]
    if network.task != control.task:
        raise ActionError(
            f"Model version {version.number} cannot serve: it was trained for {network.task}, and "
            f"the project's labels are now for {control.task}."
        )
    return control, controls
