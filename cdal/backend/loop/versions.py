"""Model versions: recording a new one, and serving the last good one if weights are damaged."""

from __future__ import annotations

import shutil
import threading
from dataclasses import asdict

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cdal.backend.loop.context import Context
from cdal.backend.loop.due import full_training_is_due
from cdal.backend.loop.prune import forget_old_weights
from cdal.backend.loop.rounds import begin_round
from cdal.backend.loop.version_images import VersionImages
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.tables import ClassMetrics, ModelVersion, Project
from cdal.models import Metrics, ModelError, TaskNetwork, check_weights, choose_device
from cdal.models.classification.stochastic import Committee

OVERTAKEN = "is kept but does not serve, since another was chosen to serve while it was trained"

_saving = threading.Lock()
"""Held while a version gets its number: a head and a whole network may be trained together."""


def save(
    work: Context,
    network: TaskNetwork,
    version: ModelVersion,
    metrics: Metrics | None,
    images: VersionImages,
    compared_with: int | None,
    background: bool = False,
    committee: Committee | None = None,
) -> str:
    """Write the weights, then record them: a kill in between leaves the old state.

    Args:
        work: the running job.
        network: what was trained.
        version: its record.
        metrics: on the held-out images.
        images: what it has learnt from and judged.
        compared_with: id of the version that it was compared with.
        background: whether only a version that serves begins a round.
        committee: heads that learnt from the same images, for the selector of that name.

    Returns:
        What has become of it, in words.
    """
    with _saving:
        version.number = _next_number(work)
        folder = work.services.config.version_folder(work.project.id, version.number)
        shutil.rmtree(folder, ignore_errors=True)  # left by a training that was killed right here
        network.save(folder, version.fingerprint)
        if committee is not None:
            committee.save(folder)
        with work.services.store.transaction() as session:
            work.check_cancelled(session)
            _record(work, session, version, compared_with)
            session.add(images.row(version.id))
            if metrics is not None:
                session.add(_class_metrics(version.id, metrics))
            if not background:
                _go_on(work, session, version)
            elif version.promoted:
                begin_round(session, work.services.jobs, work.project.id)
        forget_old_weights(work)  # a refreshed order makes a version per few labels
    return f"model version {version.number} {version.verdict}"


def _record(
    work: Context, session: Session, version: ModelVersion, compared_with: int | None
) -> None:
    """Record a version, and let it serve if it may."""
    project = session.get_one(Project, work.project.id)
    if project.serving_version_id not in (compared_with, None):
        # Another was chosen meanwhile, which this one was not compared with.
        version.promoted, version.verdict = False, OVERTAKEN
    elif project.serving_version_id is None and not version.promoted:
        version.promoted, version.verdict = True, "serves, since no other version can"
    session.add(version)
    session.flush()
    if version.promoted:
        project.serving_version_id = version.id
    note(session, project.id, f"Model version {version.number} {version.verdict}")


def _go_on(work: Context, session: Session, version: ModelVersion) -> None:
    """Begin the next round, and request what else follows a training."""
    device = choose_device(work.services.config.device)
    if full_training_is_due(session, work.project.id, work.settings, device.type):
        work.request(session, "full_training", f"model version {version.number}")
    begun = begin_round(session, work.services.jobs, work.project.id, trained=True)
    if work.settings.random_share and not begun.is_refresh:
        work.request(session, "savings", f"model version {version.number}")
    begun.round.seconds = {"train": version.seconds}


def _class_metrics(version_id: int, metrics: Metrics) -> ClassMetrics:
    return ClassMetrics(
        model_version_id=version_id,
        per_class={name: asdict(score) for name, score in metrics.per_class.items()},
        columns=len(metrics.confusion[0]) if metrics.confusion else 0,
        cells=[
            [row, column, count]
            for row, counts in enumerate(metrics.confusion)
            for column, count in enumerate(counts)
            if count
        ],
    )


def _next_number(work: Context) -> int:
    with work.services.store.reading() as session:
        query = select(func.max(ModelVersion.number)).filter_by(project_id=work.project.id)
        return (session.scalar(query) or 0) + 1


def serve_last_good(services: Services, project_id: int) -> bool:
    """If the serving version's weights are damaged, let the last version with good ones serve.

    Returns:
        Whether the serving version was replaced, or none serves now.
    """
    with services.store.reading() as session:
        project = session.get_one(Project, project_id)
        if project.serving_version_id is None:
            return False
        serving = session.get_one(ModelVersion, project.serving_version_id)
        earlier = session.scalars(
            select(ModelVersion)
            .filter_by(project_id=project_id, promoted=True)
            .where(ModelVersion.number < serving.number)
            .order_by(ModelVersion.number.desc())
        ).all()
    problem = _problem(services, serving)
    if problem is None:
        return False
    good = next((version for version in earlier if _problem(services, version) is None), None)
    goes_on = f"model version {good.number} serves again" if good else "no model serves now"
    with services.store.transaction() as session:
        project = session.get_one(Project, project_id)
        project.serving_version_id = good.id if good else None
        broken = session.get_one(ModelVersion, serving.id)
        broken.promoted, broken.verdict = False, "does not serve, since its weights are damaged"
        # So that the next training does not count as a repetition of the one that made it.
        broken.fingerprint = ""
        text = f"Model version {serving.number} cannot be loaded, so {goes_on}: {problem}"
        note(session, project_id, text, "error")
    return True


def _problem(services: Services, version: ModelVersion) -> str | None:
    try:
        check_weights(services.config.version_folder(version.project_id, version.number))
    except ModelError as error:
        return str(error)
    return None
