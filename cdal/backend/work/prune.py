"""Prune: forget what earlier model versions said of the pool; it is of no use to later rounds."""

from __future__ import annotations

import shutil

from sqlalchemy import delete, select

from cdal.backend.tables import ModelVersion, Prediction, Project, Round
from cdal.backend.work.context import Context


def forget_old_scores(work: Context, current: Round) -> None:
    """Remove the predictions and scores of model versions that no round needs any more.

    Weights are kept. What Label Studio has been given stays there: deleting predictions is slow,
    and the label stream takes no notice of them.
    """
    if current.model_version_id is None:
        return
    with work.services.store.transaction() as session:
        # An older version may serve again, and a newer round be scored with it just now.
        needed = select(Round.model_version_id).where(
            Round.project_id == work.project.id,
            Round.number >= current.number,
            Round.model_version_id.is_not(None),
        )
        serving = session.get_one(Project, work.project.id).serving_version_id
        older = session.scalars(
            select(ModelVersion).where(
                ModelVersion.project_id == work.project.id,
                ModelVersion.id.not_in(needed),
                ModelVersion.id != serving,
            )
        ).all()
        session.execute(
            delete(Prediction).where(Prediction.model_version_id.in_([v.id for v in older]))
        )
    for version in older:
        folder = work.services.config.scores_folder(work.project.id, version.number)
        shutil.rmtree(folder, ignore_errors=True)
