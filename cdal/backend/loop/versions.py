"""Model versions: recording a new one, and serving the last good one if weights are damaged."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cdal.backend.annotations.control import Control
from cdal.backend.loop.context import Context
from cdal.backend.loop.due_in_full import full_training_is_due
from cdal.backend.loop.prune import forget_old_weights
from cdal.backend.loop.rounds import begin_round
from cdal.backend.loop.serving import serve, serving_of
from cdal.backend.loop.version_images import VersionImages
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.queries import of_control, serving_versions
from cdal.backend.store.tables import ClassMetrics, ModelVersion
from cdal.durable import sync_folder
from cdal.models import Metrics, ModelError, TaskNetwork, check_weights, choose_device
from cdal.models.classification.stochastic import Committee

OVERTAKEN = "is kept but does not serve, since another was chosen to serve while it was trained"


@dataclass(frozen=True, slots=True)
class New:
    """A new model version.

    Attributes:
        control: what it is for.
        network: what was trained.
        version: its record.
        metrics: on the held-out images.
        images: what it has learnt from and judged.
        compared_with: id of the version that it was compared with.
        committee: heads that learnt from the same images, for the selector of that name.
    """

    control: Control
    network: TaskNetwork
    version: ModelVersion
    metrics: Metrics | None
    images: VersionImages
    compared_with: int | None
    committee: Committee | None = None


def save(work: Context, made: Sequence[New], background: bool = False) -> str:
    """Write the weights, then record them: a kill in between leaves the old state.

    Args:
        work: the running job.
        made: what it has trained: at most one version per control.
        background: whether only a version that serves begins a round.

    Returns:
        What has become of them, in words.
    """
    config = work.services.config
    unfinished = config.unfinished_versions(work.project.id, work.job.id, work.job.attempts)
    try:
        folders = [_write(new, unfinished / str(part)) for part, new in enumerate(made)]
        # A head and a whole network may be saved together, by two workers. They get their numbers
        # where there is one writer at a time.
        with work.services.store.transaction() as session:
            work.check_cancelled(session)
            first = _next_number(session, work.project.id)
            for number, (new, folder) in enumerate(zip(made, folders, strict=True), start=first):
                new.version.number, new.version.control = number, new.control.from_name
                _put_in_place(folder, config.version_folder(work.project.id, number))
                _record(work, session, new)
            if not background:
                _go_on(work, session, [new.version for new in made])
            elif any(new.version.promoted for new in made):
                begin_round(session, work.services.jobs, work.project.id)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    forget_old_weights(work)  # a refreshed order makes a version per few labels
    return "; ".join(f"model version {new.version.number} {new.version.verdict}" for new in made)


def _write(new: New, folder: Path) -> Path:
    """Write what was trained to a new folder, and return it."""
    new.network.save(folder, new.version.fingerprint)
    if new.committee is not None:
        new.committee.save(folder)
    return folder


def _put_in_place(folder: Path, place: Path) -> None:
    """Rename a written folder; one that is there was left by a worker that was killed here."""
    shutil.rmtree(place, ignore_errors=True)
    folder.rename(place)
    sync_folder(place.parent)


def _record(work: Context, session: Session, new: New) -> None:
    """Record a version, and let it serve if it may."""
    version = new.version
    before = serving_of(session, work.project.id, work.controls).get(new.control.from_name)
    serving_id = None if before is None else before.id
    if serving_id not in (new.compared_with, None):
        # Another was chosen meanwhile, which this one was not compared with.
        version.promoted, version.verdict = False, OVERTAKEN
    elif serving_id is None and not version.promoted:
        version.promoted, version.verdict = True, "serves, since no other version can"
    session.add(version)
    session.flush()
    if version.promoted:
        serve(session, version, new.control, work.controls)
    session.add(new.images.row(version.id))
    if new.metrics is not None:
        session.add(_class_metrics(version.id, new.metrics))
    of_control = f' for "{new.control.from_name}"' * bool(new.control.beside)
    note(session, work.project.id, f"Model version {version.number}{of_control} {version.verdict}")


def _go_on(work: Context, session: Session, versions: Sequence[ModelVersion]) -> None:
    """Begin the next round, and request what else follows a training."""
    device = choose_device(work.services.config.device)
    asked_by = f"model version {versions[0].number}"
    if full_training_is_due(session, work.project.id, work.settings, device.type):
        work.request(session, "full_training", asked_by)
    begun = begin_round(session, work.services.jobs, work.project.id, trained=True)
    if work.settings.random_share and not begun.is_refresh:
        work.request(session, "savings", asked_by)
    begun.round.seconds = {"train": sum(version.seconds for version in versions)}


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


def _next_number(session: Session, project_id: int) -> int:
    newest = session.scalar(select(func.max(ModelVersion.number)).filter_by(project_id=project_id))
    return (newest or 0) + 1


def serve_last_good(services: Services, project_id: int) -> None:
    """If a serving version's weights are damaged, let the last version with good ones serve."""
    with services.store.reading() as session:
        serving = serving_versions(session, project_id)
    for version in serving:
        problem = _problem(services, version)
        if problem is not None:
            _replace_damaged(services, version, problem)


def _replace_damaged(services: Services, serving: ModelVersion, problem: str) -> None:
    with services.store.reading() as session:
        earlier = session.scalars(
            select(ModelVersion)
            .filter_by(project_id=serving.project_id, promoted=True)
            .where(ModelVersion.number < serving.number, of_control(serving.control))
            .order_by(ModelVersion.number.desc())
        ).all()
    good = next((version for version in earlier if _problem(services, version) is None), None)
    goes_on = f"model version {good.number} serves again" if good else "no model serves now"
    with services.store.transaction() as session:
        broken = session.get_one(ModelVersion, serving.id)
        if not broken.serves:  # another has taken its place while the weights were read
            return
        broken.promoted, broken.verdict = False, "does not serve, since its weights are damaged"
        # So that the next training does not count as a repetition of the one that made it.
        broken.fingerprint = ""
        broken.serves = False
        if good is not None:
            again = session.get_one(ModelVersion, good.id)
            again.serves, again.control = True, serving.control
        text = f"Model version {serving.number} cannot be loaded, so {goes_on}: {problem}"
        note(session, serving.project_id, text, "error")


def _problem(services: Services, version: ModelVersion) -> str | None:
    try:
        check_weights(services.config.version_folder(version.project_id, version.number))
    except ModelError as error:
        return str(error)
    return None
