"""Forgetting a project: all that the store and the data folder have of it is removed."""

from __future__ import annotations

import shutil

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from cdal.backend.config import ServerConfig
from cdal.backend.tables import (
    Annotator,
    Event,
    Job,
    ModelVersion,
    Pick,
    Prediction,
    Project,
    RandomLabel,
    Ranking,
    Round,
    Submission,
    Task,
    Yardstick,
)

OF_A_PROJECT = (
    Annotator,
    Event,
    Job,
    RandomLabel,
    Submission,
    Task,
    Yardstick,
    Round,
    ModelVersion,  # which rounds refer to
)


def forget_rows(session: Session, project_id: int) -> None:
    """Remove a project from the store; none of its jobs may run."""
    rounds = select(Round.id).filter_by(project_id=project_id)
    versions = select(ModelVersion.id).filter_by(project_id=project_id)
    session.execute(delete(Pick).where(Pick.round_id.in_(rounds)))
    session.execute(delete(Ranking).where(Ranking.round_id.in_(rounds)))
    session.execute(delete(Prediction).where(Prediction.model_version_id.in_(versions)))
    for table in OF_A_PROJECT:
        session.execute(delete(table).where(table.project_id == project_id))
    session.execute(delete(Project).where(Project.id == project_id))


def forget_files(config: ServerConfig, project_id: int) -> None:
    """Remove a project's weights and scores; what a kill leaves is removed at the next start."""
    shutil.rmtree(config.project_folder(project_id), ignore_errors=True)
