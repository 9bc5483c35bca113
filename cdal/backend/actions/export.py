"""Exporting a model version for other programs: by the worker, or at once."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.actions.done import Done
from cdal.backend.errors import ActionError
from cdal.backend.loop.export import want, write_version
from cdal.backend.loop.serving import main_version
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.queries import find_project
from cdal.backend.store.tables import ModelVersion, Project
from cdal.backend.text import requester


def request_export(
    services: Services, project_id: int, number: int, file_format: str, by: str
) -> Done:
    """Have the worker write a model version as a file, which a page then offers as a download.

    Raises:
        ActionError: there is no such version or format.
    """
    _check_format(file_format)
    with services.store.transaction() as session:
        _, version = _which(session, project_id, number)
        job = want(session, services.jobs, version, file_format, requester(by))
        what = f"Export of model version {number} as {file_format}"
        note(session, project_id, f"{what} requested by {requester(by)}")
    services.jobs.send_pending(project_id)
    return Done(text=f"{what}: job {job} writes it; the download appears beside it.", job=job)


def export(
    services: Services, project_id: int, number: int | None, file_format: str, folder: Path
) -> Done:
    """Write a model version to a new folder, in a format of other programs, in this process.

    Args:
        services: where the version is.
        project_id: its project.
        number: its number; None: the version that serves, for the main control.
        file_format: a key of ``cdal.export.FORMATS``.
        folder: a folder that does not exist yet.

    Raises:
        ActionError: there is no such version, its weights are gone, or it cannot be exported or
            written.
    """
    _check_format(file_format)
    with services.store.reading() as session:
        project, version = _which(session, project_id, number)
    try:
        difference = write_version(services, project, version, file_format, folder)
    except (OSError, SafetensorError) as error:  # the disk of the folder, not the backend's own
        reason = getattr(error, "strerror", None) or error
        raise ActionError(f"{folder} cannot be written: {reason}.") from None
    return Done(
        text=f"{folder} holds model version {version.number} as {file_format}; no probability "
        f"differs by more than {difference:.4f} from the model's."
    )


def _check_format(file_format: str) -> None:
    # Few processes export.
    from cdal.export import FORMATS

    if file_format not in FORMATS:
        raise ActionError(f"The format must be one of {', '.join(FORMATS)}.", 400)


def _which(session: Session, project_id: int, number: int | None) -> tuple[Project, ModelVersion]:
    project = find_project(session, project_id)
    if number is None:
        version = main_version(session, project)
    else:
        wanted = select(ModelVersion).filter_by(project_id=project.id, number=number)
        version = session.scalars(wanted).one_or_none()
    if version is None:
        what = "serving model version" if number is None else f"model version {number}"
        raise ActionError(f"There is no {what} of project {project_id}.", 404)
    return project, version
