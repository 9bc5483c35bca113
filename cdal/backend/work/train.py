"""Train: read the labels, fit a new model version, and let it serve if it is no worse."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from sqlalchemy import func, select

from cdal.backend.choices import label_of
from cdal.backend.dataset import LabelledImage, TaskImages
from cdal.backend.rounds import UNFINISHED, is_finished, open_round
from cdal.backend.settings import ProjectSettings
from cdal.backend.store import note
from cdal.backend.tables import ModelVersion, Project, Task
from cdal.backend.tasks import count_labelled
from cdal.backend.work.context import Context
from cdal.backend.work.sync import read_changes
from cdal.models import (
    FitProgress,
    Metrics,
    Recipe,
    TaskNetwork,
    choose_device,
    choose_image_size,
    default_architecture,
    fingerprint,
    make_network,
)

SIZES_LOOKED_AT = 100
READING, FITTING = 0.1, 0.85  # shares of the job's progress


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a new model version serves, and why, in words."""

    promoted: bool
    why: str


def run(work: Context) -> str:
    """Train on all labels, then begin the next round."""
    started = time.monotonic()
    read_changes(work)
    labels = read_labels(work)
    with work.services.store.transaction() as session:
        session.get_one(Project, work.project.id).training_labels = count_labelled(
            session, work.project.id
        )
    short = too_few(labels.values(), work.settings.min_labels)
    if short is not None:
        return _begin_without(work, short)
    device = choose_device(work.services.config.device)
    mark = _fingerprint(work, labels, device)
    if _is_newest(work, mark):
        return _begin_without(work, "nothing has changed since the newest model version")
    images = _labelled_images(work, labels)
    serving = _serving_folder(work)
    network = _network_to_train(work, images, serving, device)
    images, problems = images.read(
        network.prepare, lambda share: work.report(READING * share, "reading the images")
    )
    record_problems(work, problems)
    short = too_few((item.target for item in images.items), 2)
    if short is not None:
        return _begin_without(work, f"{len(problems)} images could not be read. {short}")
    train, held_out = split(images, work.settings.held_out)
    report = network.fit(train, held_out, recipe_of(work.settings), _progress(work), work.stop)
    work.report(READING + FITTING, "comparing with the serving model")
    before = None
    if serving is not None and len(held_out) and _kept_images_held_out(work):
        before = TaskNetwork.load(serving, device, work.control.labels).evaluate(
            held_out, work.stop
        )
    verdict = judge(report.metrics, before, work.settings.tolerance)
    version = ModelVersion(
        project_id=work.project.id,
        number=_next_number(work),
        architecture=network.manifest.architecture,
        classes=list(network.classes),
        fingerprint=mark,
        labels=len(labels),
        metrics=report.metrics.to_dict() if report.metrics else {},
        serving_metrics=before.to_dict() if before else None,
        promoted=verdict.promoted,
        verdict=verdict.why,
        seconds=time.monotonic() - started,
    )
    _save(work, network, version)
    return f"model version {version.number} {verdict.why}"


def _begin_without(work: Context, why: str) -> str:
    """Begin the next round, if one is due, without a new model: none was possible or needed."""
    with work.services.store.transaction() as session:
        current = work.newest_round(session, "open", *UNFINISHED)
        labelled = count_labelled(session, work.project.id)
        if current is None or (current.state == "open" and is_finished(session, current, labelled)):
            open_round(work, session, cold_start=why)
    return f"not trained: {why}"


def _save(work: Context, network: TaskNetwork, version: ModelVersion) -> None:
    """Write the weights, then make them known: a kill in between leaves the old state."""
    folder = work.services.config.version_folder(work.project.id, version.number)
    shutil.rmtree(folder, ignore_errors=True)  # of a training that was killed right here
    network.save(folder, version.fingerprint)
    with work.services.store.transaction() as session:
        session.add(version)
        session.flush()
        if version.promoted:
            session.get_one(Project, work.project.id).serving_version_id = version.id
        note(session, work.project.id, f"Model version {version.number} {version.verdict}")
        begun = open_round(work, session)
        begun.seconds = {"train": version.seconds}


def read_labels(work: Context) -> dict[int, str]:
    """The label of every task that has one, by task id, from Label Studio itself."""
    labels = {}
    for task_id, given in work.client.annotations():
        label = label_of(work.control, given)
        if label is not None:
            labels[task_id] = label
    return labels


def is_held_out(task_id: int, share: float) -> bool:
    """Whether an image is kept to measure models on: fixed for good by its task's id."""
    digest = hashlib.sha256(str(task_id).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def split(images: TaskImages, share: float) -> tuple[TaskImages, TaskImages]:
    """Training and held-out images; all are trained on where one class alone would be left."""
    train = images.where(lambda item: not is_held_out(item.task_id, share))
    if len({item.target for item in train.items}) < 2:
        return images, images.where(lambda _: False)
    return train, images.where(lambda item: is_held_out(item.task_id, share))


def judge(new: Metrics | None, serving: Metrics | None, tolerance: float) -> Verdict:
    """A new version serves unless it is worse than the serving one by more than the tolerance."""
    if new is None:
        return Verdict(True, "serves; there are no held-out images yet to measure it on")
    measured = f"{new.main_name} {new.main:.3f} on {new.images} held-out images"
    if serving is None:
        return Verdict(True, f"serves, as the first to be measured; {measured}")
    compared = f"{measured}, before it {serving.main:.3f}"
    if new.main < serving.main - tolerance:
        return Verdict(False, f"kept but does not serve, since it is worse: {compared}")
    return Verdict(True, f"serves; {compared}")


def too_few(labels: Iterable[object], needed: int) -> str | None:
    """Why these labels are not enough to train on, None where they are."""
    counts = Counter(labels)
    if counts.total() < needed:
        return f"{counts.total()} of at least {needed} labels are there."
    if len(counts) < 2:
        return f"All {counts.total()} labels are of one class; a model needs two."
    return None


def recipe_of(settings: ProjectSettings) -> Recipe:
    """The training recipe that a project's settings ask for."""
    return Recipe(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
    )


def record_problems(work: Context, problems: Mapping[int, str]) -> None:
    """Remember which images cannot be used, and why; they are left out of rounds."""
    if not problems:
        return
    with work.services.store.transaction() as session:
        for task_id, problem in problems.items():
            task = session.get(Task, (work.project.id, task_id))
            if task is not None:
                task.image_problem = problem
        first = next(iter(problems.items()))
        text = f"{len(problems)} images cannot be used; task {first[0]}: {first[1]}"
        note(session, work.project.id, text, "warning")


def _fingerprint(work: Context, labels: Mapping[int, str], device: torch.device) -> str:
    settings = work.settings
    choices = (settings.network, device.type, settings.image_size, settings.pretrained)
    chosen = " ".join(map(str, (*choices, settings.held_out)))
    recipe = recipe_of(settings)
    return fingerprint(list(labels), list(labels.values()), recipe, chosen, work.control.labels)


def _is_newest(work: Context, mark: str) -> bool:
    with work.services.store.reading() as session:
        newest = session.scalars(
            select(ModelVersion)
            .filter_by(project_id=work.project.id)
            .order_by(ModelVersion.number.desc())
        ).first()
    return newest is not None and newest.fingerprint == mark


def _next_number(work: Context) -> int:
    with work.services.store.reading() as session:
        query = select(func.max(ModelVersion.number)).filter_by(project_id=work.project.id)
        return (session.scalar(query) or 0) + 1


def _labelled_images(work: Context, labels: Mapping[int, str]) -> TaskImages:
    classes = {name: index for index, name in enumerate(work.control.labels)}
    with work.services.store.reading() as session:
        known = session.execute(
            select(Task.task_id, Task.image).where(Task.project_id == work.project.id)
        )
        items = [
            LabelledImage(task_id, image, classes[labels[task_id]])
            for task_id, image in known
            if task_id in labels
        ]
    source = work.services.image_source(work.project)
    return TaskImages(work.services.images, source, sorted(items, key=lambda item: item.task_id))


def _serving_folder(work: Context) -> Path | None:
    with work.services.store.reading() as session:
        serving = session.get_one(Project, work.project.id).serving_version_id
        if serving is None:
            return None
        number = session.get_one(ModelVersion, serving).number
    return work.services.config.version_folder(work.project.id, number)


def _kept_images_held_out(work: Context) -> bool:
    """Whether the serving model has not seen the held-out images, so that it may be measured."""
    with work.services.store.reading() as session:
        serving = session.get_one(Project, work.project.id).serving_version_id
        # One that was trained on every image, for want of others, has no metrics.
        return serving is not None and bool(session.get_one(ModelVersion, serving).metrics)


def _network_to_train(
    work: Context, images: TaskImages, serving: Path | None, device: torch.device
) -> TaskNetwork:
    """The serving model to fine-tune, or a fresh network where that is asked for or needed."""
    settings = work.settings
    size = settings.image_size or choose_image_size(images.sizes(SIZES_LOOKED_AT), device)
    architecture = settings.network or default_architecture("classification", device, size)
    if serving is not None and settings.warm_start:
        network = TaskNetwork.load(serving, device, work.control.labels)
        manifest = network.manifest
        if (manifest.architecture, manifest.image_size) == (architecture, size):
            return network
    return make_network(
        architecture=architecture,
        classes=work.control.labels,
        image_size=size,
        device=device,
        seed=settings.seed,
        pretrained=settings.pretrained,
        weights_folder=work.services.config.weights_folder,
    )


def _progress(work: Context) -> Callable[[FitProgress], None]:
    def report(fit: FitProgress) -> None:
        metric = "" if fit.metric is None else f", held-out metric {fit.metric:.3f}"
        work.report(
            READING + FITTING * fit.share, f"training, epoch {fit.epoch} of {fit.epochs}{metric}"
        )

    return report
