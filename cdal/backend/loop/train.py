"""Train: read the labels, fit a new model version, and let it serve if it is no worse."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import torch
from sqlalchemy import func, select

from cdal.backend.annotations.control import Control
from cdal.backend.loop.changes import read_changes
from cdal.backend.loop.context import Context
from cdal.backend.loop.due import decide, read_facts
from cdal.backend.loop.gate import Serving, compare_with_serving, judge, judge_images
from cdal.backend.loop.image_problems import record_problems, refuse_if_away
from cdal.backend.loop.labelled_set import (
    labelled_images,
    least_classes,
    note_changed,
    note_learnt,
    note_unread,
    read_labels,
    too_few,
)
from cdal.backend.loop.rounds import begin_round
from cdal.backend.loop.split import split, without
from cdal.backend.loop.training_images import TrainingImages
from cdal.backend.loop.version_images import VersionImages
from cdal.backend.loop.versions import serve_last_good
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.events import note
from cdal.backend.store.queries import count_labelled
from cdal.backend.store.tables import ClassMetrics, ModelVersion, Project
from cdal.models import (
    BACKGROUND,
    FitProgress,
    Metrics,
    ModelError,
    Recipe,
    TaskNetwork,
    choose_device,
    choose_network,
    fingerprint,
    fit,
    load_network,
    make_network,
)

SIZES_LOOKED_AT = 100

READING, FITTING = 0.1, 0.85  # shares of the job's progress

OVERTAKEN = "is kept but does not serve, since another was chosen to serve while it was trained"


def run(work: Context) -> str:
    """Train on all labels, then begin the next round."""
    started = time.monotonic()
    read_changes(work)
    labels = read_labels(work)
    truths = labels.truths
    with work.services.store.transaction() as session:
        session.get_one(Project, work.project.id).training_labels = count_labelled(
            session, work.project.id
        )
        note_learnt(session, work.project.id, labels.marks)
    needed = least_classes(work.control)
    short = too_few(truths.values(), work.settings.min_labels, needed)
    if short is not None:
        note_unread(work, labels)
        return _begin_without(work, short)
    device = choose_device(work.services.config.device)
    images = labelled_images(work, truths)
    serving_id, serving = _serving(work, device)
    to_continue = None if serving is None else serving.network
    network, continues = network_to_train(work, images, to_continue, device)
    read = images.read(network, lambda share: work.report(READING * share, "reading the images"))
    images = read.images
    # People can label other images meanwhile, so a training does not wait for ever.
    refuse_if_away(work, read.problems, len(truths), needs_one=False)
    record_problems(work, read.problems)
    note_unread(work, labels, read)
    note_changed(work, read, network.seen_size)
    short = too_few((item.truth for item in images.items), needed, needed)
    if short is not None:
        return _begin_without(work, f"{len(read.problems)} images could not be read. {short}")
    started_from = serving_id if continues else None
    mark = _fingerprint(work, images, network)
    if _is_newest(work, mark, started_from):
        return _begin_without(work, "nothing has changed since the newest model version")
    known = None if serving is None else serving.images
    begun_with = known.learnt if known is not None and continues else frozenset()
    train, held_out = split(images, work.settings.held_out, begun_with)
    recipe = recipe_of(work.settings)
    report = fit(
        network,
        train.prepared_for(network),
        held_out.prepared_for(network),
        recipe,
        _progress(work),
        work.stop,
    )
    work.report(READING + FITTING, "comparing with the serving model")
    judged = judge_images(network, images, recipe, work.stop)
    paired = before = None
    if serving is not None:
        paired = compare_with_serving(
            network, judged, serving, images, held_out, work.control, work.stop
        )
        before = _metrics_of(serving, held_out, work)
    verdict = judge(report.metrics, paired, work.settings.tolerance, first=serving is None)
    learnt = VersionImages(begun_with | {item.content for item in train.items}, judged)
    version = ModelVersion(
        project_id=work.project.id,
        number=_next_number(work),
        architecture=network.manifest.architecture,
        classes=list(network.classes),
        fingerprint=mark,
        labels=len(truths),
        metrics=report.metrics.overall() if report.metrics else {},
        serving_metrics=before.overall() if before else None,
        started_from=started_from,
        promoted=verdict.promoted,
        verdict=verdict.why,
        seconds=time.monotonic() - started,
    )
    _save(work, network, version, report.metrics, learnt, serving_id)
    return f"model version {version.number} {version.verdict}"


def _begin_without(work: Context, why: str) -> str:
    """Begin the next round if one is due, although there is no new model."""
    with work.services.store.transaction() as session:
        facts = read_facts(session, work.project.id, work.settings, without_model=True)
        if decide(facts).step == "begin a round":
            begin_round(session, work.services.jobs, work.project.id, cold_start=why, trained=True)
        elif decide(replace(facts, without_model=False, training=False)).step is not None:
            work.request(session, "sync", "labels that came meanwhile")
    return f"not trained: {why}"


def _metrics_of(serving: Serving, held_out: TrainingImages, work: Context) -> Metrics | None:
    """The serving version on the held-out images; None if it has learnt from any of them."""
    if serving.images is None or not len(held_out):
        return None
    if len(without(held_out, serving.images.learnt)) < len(held_out):
        return None
    return serving.network.evaluate(held_out.prepared_for(serving.network), work.stop)


def _save(
    work: Context,
    network: TaskNetwork,
    version: ModelVersion,
    metrics: Metrics | None,
    images: VersionImages,
    compared_with: int | None,
) -> None:
    """Write the weights, then record them: a kill in between leaves the old state."""
    folder = work.services.config.version_folder(work.project.id, version.number)
    shutil.rmtree(folder, ignore_errors=True)  # left by a training that was killed right here
    network.save(folder, version.fingerprint)
    with work.services.store.transaction() as session:
        work.check_cancelled(session)
        project = session.get_one(Project, work.project.id)
        if project.serving_version_id not in (compared_with, None):
            # Somebody rolled back meanwhile to a version that this one was not compared with.
            version.promoted, version.verdict = False, OVERTAKEN
        elif project.serving_version_id is None and not version.promoted:
            version.promoted, version.verdict = True, "serves, since no other version can"
        session.add(version)
        session.flush()
        session.add(images.row(version.id))
        if metrics is not None:
            session.add(_class_metrics(version.id, metrics))
        if version.promoted:
            project.serving_version_id = version.id
        note(session, project.id, f"Model version {version.number} {version.verdict}")
        begun = begin_round(session, work.services.jobs, project.id, trained=True)
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


def network_classes(control: Control, settings: ProjectSettings) -> tuple[str, ...]:
    """The classes of a network for this control, in order."""
    if control.task == "segmentation" and settings.unlabelled == "background":
        return (*control.labels, BACKGROUND)
    return control.labels


def recipe_of(settings: ProjectSettings) -> Recipe:
    """The training recipe that a project's settings describe."""
    return Recipe(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
    )


def _fingerprint(work: Context, images: TrainingImages, network: TaskNetwork) -> str:
    """The fingerprint of everything that a training depends on, except what full training starts
    from.
    """
    settings, manifest = work.settings, network.manifest
    backbone = "" if manifest.backbone is None else manifest.backbone.sha256
    start = (manifest.architecture, backbone, network.device.type, manifest.image_size)
    more = (settings.pretrained, settings.weights, settings.held_out, settings.warm_start)
    chosen = " ".join(map(str, (*start, *more)))
    digests = [f"{item.truth.digest()} {json.dumps(item.image)}" for item in images.items]
    ids = [item.task_id for item in images.items]
    classes = (work.control.tag, *network_classes(work.control, settings))
    return fingerprint(ids, digests, recipe_of(settings), chosen, classes)


def _is_newest(work: Context, mark: str, started_from: int | None) -> bool:
    """Whether a training would repeat the newest version, or one that it started from."""
    with work.services.store.reading() as session:
        newest = session.scalars(
            select(ModelVersion)
            .filter_by(project_id=work.project.id)
            .order_by(ModelVersion.number.desc())
        ).first()
    if newest is None or newest.fingerprint != mark:
        return False
    return started_from in (newest.id, newest.started_from)


def _next_number(work: Context) -> int:
    with work.services.store.reading() as session:
        query = select(func.max(ModelVersion.number)).filter_by(project_id=work.project.id)
        return (session.scalar(query) or 0) + 1


def _serving(work: Context, device: torch.device) -> tuple[int | None, Serving | None]:
    """The serving version's id, and its model with the current classes if it is for this task."""
    with work.services.store.reading() as session:
        serving = session.get_one(Project, work.project.id).serving_version_id
        if serving is None:
            return None, None
        number = session.get_one(ModelVersion, serving).number
        images = VersionImages.read(session, serving)
    try:
        folder = work.services.config.version_folder(work.project.id, number)
        network = load_network(folder, device, sources=work.services.weight_sources)
    except ModelError:
        if not serve_last_good(work.services, work.project.id):
            raise
        return _serving(work, device)
    if network.task != work.control.task:
        return serving, None
    known, classes = network.classes, network_classes(work.control, work.settings)
    if known != classes:
        network = network.with_classes(classes, work.control.former_names(known))
    return serving, Serving(network, known, images)


def network_to_train(
    work: Context, images: TrainingImages, serving: TaskNetwork | None, device: torch.device
) -> tuple[TaskNetwork, bool]:
    """The network, and whether it is the serving one, to be fine-tuned, instead of a new one.

    A head always starts from scratch, which takes seconds; its backbone never changes.
    """
    settings, task = work.settings, work.control.task
    architecture, size = settings.network, settings.image_size
    if not settings.trains_head:
        sizes = images.sizes(SIZES_LOOKED_AT) if size is None else []
        architecture, size = choose_network(task, device, sizes, architecture, size, "full")
        if serving is not None and settings.warm_start:
            manifest = serving.manifest
            if (manifest.architecture, manifest.image_size) == (architecture, size):
                return copy.deepcopy(serving), True
    made = make_network(
        task=task,
        architecture=architecture,
        classes=network_classes(work.control, settings),
        image_size=size,
        device=device,
        seed=settings.seed,
        pretrained=settings.pretrained,
        sources=work.services.weight_sources,
        weights_file=work.services.config.weights_file(settings.weights),
    )
    return made, False


def _progress(work: Context) -> Callable[[FitProgress], None]:
    def report(fit: FitProgress) -> None:
        metric = "" if fit.metric is None else f", held-out metric {fit.metric:.3f}"
        work.report(
            READING + FITTING * fit.share, f"training, epoch {fit.epoch} of {fit.epochs}{metric}"
        )

    return report
