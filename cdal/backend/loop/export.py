"""Export: write a model version for other programs, which may take a minute and much memory."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cdal.backend.annotations.rectangles import SCORE_THRESHOLD
from cdal.backend.config import ServerConfig
from cdal.backend.errors import ActionError, ConfigError
from cdal.backend.jobs.manager import Jobs
from cdal.backend.loop.context import Context
from cdal.backend.project_config import ProjectConfig, paired
from cdal.backend.services import Services
from cdal.backend.store.tables import Export, Job, ModelVersion, Project, now
from cdal.models import ModelError, load_network
from cdal.models.predictions import CHOSEN

UNFINISHED = ".unfinished-"
"""Begins the names of folders in which files are made."""

KEPT_FOR = timedelta(days=1)
"""Files are removed after this time: they can be made again."""


def run(work: Context) -> str:
    """Make the files that were requested and are not made yet."""
    # Of a project, one such job runs at a time: what is unfinished is of one that was killed.
    for left in work.services.config.exports_folder(work.project.id).glob(f"{UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    with work.services.store.reading() as session:
        wanted = session.execute(
            select(Export.file_format, ModelVersion)
            .join(ModelVersion, ModelVersion.id == Export.model_version_id)
            .where(ModelVersion.project_id == work.project.id)
            .where(Export.made_at.is_(None), Export.problem.is_(None))
            .order_by(ModelVersion.number, Export.file_format)
        ).all()
    written = 0
    for done, (file_format, version) in enumerate(wanted):
        work.check_stop()
        work.report(done / len(wanted), f"writing version {version.number} as {file_format}")
        problem = _make(work, version, file_format)
        written += problem is None
        with work.services.store.transaction() as session:
            row = session.get(Export, (version.id, file_format))
            if row is not None:  # else its project is forgotten
                row.made_at, row.problem = (now() if problem is None else None), problem
    return f"{written} of {len(wanted)} requested exports written"


def _make(work: Context, version: ModelVersion, file_format: str) -> str | None:
    """Write the file, completely or not at all; returns why it cannot be written, if so."""
    target = work.services.config.export_file(work.project.id, version.number, file_format)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=UNFINISHED) as folder:
        model = Path(folder) / "model"
        try:
            write_version(work.services, work.project, version, file_format, model)
        except ActionError as error:
            return str(error)
        Path(shutil.make_archive(str(Path(folder) / "packed"), "zip", model)).replace(target)
    return None


def write_version(
    services: Services, project: Project, version: ModelVersion, file_format: str, folder: Path
) -> float:
    """Write a model version to a new folder, in a format of other programs.

    Returns:
        The largest difference of a probability from the model's own.

    Raises:
        ActionError: its weights are gone, or it cannot be exported.
    """
    # Few processes export.
    from cdal.export import CheckError, ExportError, export

    try:
        network = load_network(
            services.config.version_folder(project.id, version.number),
            torch.device("cpu"),
            sources=replace(services.weight_sources, downloads=False),
        )
        return export(network, folder, file_format, _score_threshold(project, version))
    except (ModelError, ExportError, CheckError) as error:
        reason = str(error).replace(str(services.config.data_folder), "the data folder")
        raise ActionError(f"Model version {version.number} cannot be exported: {reason}") from None


def want(session: Session, jobs: Jobs, version: ModelVersion, file_format: str, by: str) -> int:
    """Have a file made, also where it could not be made before; returns the job."""
    session.merge(
        Export(model_version_id=version.id, file_format=file_format, made_at=None, problem=None)
    )
    return jobs.request(session, version.project_id, "export", by)


def give_up_exports_of(session: Session, job: Job) -> None:
    """Record why files are missing whose job failed for good or was cancelled.

    Otherwise people would wait for them, and one that cannot be written would end every later job
    as well. If another such job is waiting or running, it writes them.
    """
    if job.kind != "export" or Jobs.is_active(session, job.project_id, "export"):
        return
    versions = select(ModelVersion.id).filter_by(project_id=job.project_id)
    awaited = Export.made_at.is_(None) & Export.problem.is_(None)
    session.execute(
        update(Export)
        .where(Export.model_version_id.in_(versions), awaited)
        .values(problem=(job.error if job.state == "failed" else job.outcome) or "Not written.")
    )


def want_again(session: Session, project_id: int) -> None:
    """Have the files of a project made that could not be made before."""
    versions = select(ModelVersion.id).filter_by(project_id=project_id)
    session.execute(
        update(Export).where(Export.model_version_id.in_(versions)).values(problem=None)
    )


def exports_of(
    session: Session, config: ServerConfig, project: Project
) -> dict[int, dict[str, Export]]:
    """What was requested, by the version's number and the format.

    A file that is gone, since backups leave it out, was not requested.
    """
    rows = session.execute(
        select(ModelVersion.number, Export)
        .join(ModelVersion, ModelVersion.id == Export.model_version_id)
        .where(ModelVersion.project_id == project.id)
    )
    found: dict[int, dict[str, Export]] = {}
    for number, export in rows:
        file = config.export_file(project.id, number, export.file_format)
        if export.made_at is None or file.exists():
            found.setdefault(number, {})[export.file_format] = export
    return found


def forget_old(work: Context) -> None:
    """Remove the files that were made long ago."""
    before, config = now() - KEPT_FOR, work.services.config
    with work.services.store.transaction() as session:
        for number, exports in exports_of(session, config, work.project).items():
            for file_format, export in exports.items():
                if export.made_at is not None and export.made_at < before:
                    file = config.export_file(work.project.id, number, file_format)
                    file.unlink(missing_ok=True)
                    session.delete(export)


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
