"""Which model version serves each control of a project."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import update
from sqlalchemy.orm import Session

from cdal.backend.annotations.control import Control
from cdal.backend.errors import ConfigError
from cdal.backend.project_config import ProjectConfig, paired
from cdal.backend.store.queries import serving_versions
from cdal.backend.store.tables import ModelVersion, Project


def serving_of(
    session: Session, project_id: int, controls: Sequence[Control]
) -> dict[str, ModelVersion]:
    """The versions that serve by the name of their control, in the order of the controls."""
    versions = serving_versions(session, project_id)
    pairs = paired({version.control: version.classes for version in versions}, controls)
    found = {pairs[v.control].from_name: v for v in versions if v.control in pairs}
    return {c.from_name: found[c.from_name] for c in controls if c.from_name in found}


def serve(
    session: Session, version: ModelVersion, control: Control, controls: Sequence[Control]
) -> None:
    """Let a version serve its control, in the place of the one that does."""
    before = serving_of(session, version.project_id, controls).get(control.from_name)
    if before is not None:
        before.serves = False
    version.control, version.serves = control.from_name, True


def adopt(session: Session, project_id: int, controls: Sequence[Control]) -> None:
    """Let versions bear the current name of their control, which people may have renamed."""
    known = {v.control: v.classes for v in serving_versions(session, project_id)}
    for name, control in paired(known, controls).items():
        if name != control.from_name:
            of_name = ModelVersion.control == name
            session.execute(
                update(ModelVersion)
                .where(ModelVersion.project_id == project_id, of_name)
                .values(control=control.from_name)
            )


def main_version(session: Session, project: Project) -> ModelVersion | None:
    """The version that serves a project's main control, or else the first that serves."""
    serving = serving_versions(session, project.id)
    try:
        config = ProjectConfig.parse(project.labeling_config, project.extra_params)
    except ConfigError:  # it has changed, the models have not
        return serving[0] if serving else None
    return next(iter(serving_of(session, project.id, config.controls).values()), None)
