"""Exporting a model version for other programs."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import torch
from sqlalchemy import select

from cdal.backend.actions.done import Done
from cdal.backend.annotations.rectangles import SCORE_THRESHOLD
from cdal.backend.errors import ActionError, ConfigError
from cdal.backend.loop.serving import main_version
from cdal.backend.project_config import ProjectConfig, paired
from cdal.backend.services import Services
from cdal.backend.store.queries import find_project
from cdal.backend.store.tables import ModelVersion, Project
from cdal.models import ModelError, load_network
from cdal.models.predictions import CHOSEN

_exporting = threading.Lock()
"""Held by an export: it takes seconds of a processor and the memory of a second model."""


def export(
    services: Services, project_id: int, number: int | None, file_format: str, folder: Path
) -> Done:
    """Write a model version to a new folder, in a format of other programs.

    Args:
        services: where the version is.
        project_id: its project.
        number: its number; None: the version that serves, for the main control.
        file_format: a key of ``cdal.export.FORMATS``.
        folder: a folder that does not exist yet.

    Raises:
        ActionError: there is no such version, its weights are gone, it cannot be exported, or
            another is being exported.
    """
    # Few processes export.
    from cdal.export import FORMATS, CheckError, ExportError
    from cdal.export import export as write

    if file_format not in FORMATS:
        raise ActionError(f"The format must be one of {', '.join(FORMATS)}.", 400)
    project, version = _which(services, project_id, number)
    number = version.number
    if not _exporting.acquire(blocking=False):
        raise ActionError("Another model is being exported; try again in a minute.", 503)
    try:
        network = load_network(
            services.config.version_folder(project.id, number),
            torch.device("cpu"),
            sources=replace(services.weight_sources, downloads=False),
        )
        difference = write(network, folder, file_format, _score_threshold(project, version))
    except (ModelError, ExportError, CheckError) as error:
        reason = str(error).replace(str(services.config.data_folder), "the data folder")
        raise ActionError(f"Model version {number} cannot be exported: {reason}") from None
    finally:
        _exporting.release()
    return Done(
        text=f"{folder} holds model version {number} as {file_format}; no probability differs by "
        f"more than {difference:.4f} from the model's."
    )


def _which(services: Services, project_id: int, number: int | None) -> tuple[Project, ModelVersion]:
    with services.store.reading() as session:
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


def _score_threshold(project: Project, version: ModelVersion) -> float:
    """From which confidence the project's people are shown what a model finds."""
    try:
        controls = ProjectConfig.parse(project.labeling_config, project.extra_params).controls
    except ConfigError:  # the project's config has changed, the model has not
        return 0.0
    control = paired({version.control: version.classes}, controls)[version.control]
    if control.score_threshold is not None:
        return control.score_threshold
    return {"detection": SCORE_THRESHOLD, "multilabel": CHOSEN}.get(control.task, 0.0)
