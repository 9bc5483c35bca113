"""Train: read the labels, fit new model versions, and let each serve if it is no worse."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from sqlalchemy import select

from cdal.backend.loop.changes import ensure_read
from cdal.backend.loop.context import Context
from cdal.backend.loop.due import decide, read_facts
from cdal.backend.loop.engines.choice import engine_of
from cdal.backend.loop.gate import Serving, compare_with_serving, judge, judge_images
from cdal.backend.loop.image_problems import record_problems, refuse_if_away
from cdal.backend.loop.labelled_set import (
    Labels,
    labelled_as,
    labelled_images,
    least_classes,
    marks_of,
    note_changed,
    note_learnt,
    note_unread,
    read_labels,
    read_submitted,
    too_few,
)
from cdal.backend.loop.rounds import begin_round
from cdal.backend.loop.serving import serving_of
from cdal.backend.loop.split import split, without
from cdal.backend.loop.training_images import TrainingImages
from cdal.backend.loop.version_images import VersionImages
from cdal.backend.loop.versions import New, save, serve_last_good
from cdal.backend.project_config import IN_TILES, network_classes, tells_objects_apart
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.queries import count_labelled, of_control
from cdal.backend.store.tables import ModelVersion, Project
from cdal.models import (
    FitProgress,
    FitReport,
    Metrics,
    ModelError,
    Recipe,
    TaskNetwork,
    choose_device,
    choose_network,
    fingerprint,
    load_network,
    make_network,
)
from cdal.models.classification.head import ClassificationHead
from cdal.models.classification.stochastic import Committee
from cdal.selectors import opinions_of

SIZES_LOOKED_AT = 100

READING, FITTING = 0.1, 0.85  # shares of the job's progress


@dataclass(frozen=True, slots=True)
class Trained:
    """A network that has just been trained, and what it is to be compared on.

    Attributes:
        network: the network.
        committee: heads that learnt from the same images; None unless the selector compares them.
        recipe: of the training.
        report: of the training.
        images: the labelled images.
        held_out: those that it has not learnt from.
        learnt: those that it, or a version whose weights it began with, has learnt from.
        fingerprint: of everything that the training depended on.
        labels: labelled images that were known.
        serving_id: id of the version that served when the training began.
        serving: that version, if it is for this task.
        started_from: id of the version whose weights it began with.
        started: when it began, by ``time.monotonic``.
    """

    network: TaskNetwork
    committee: Committee | None
    recipe: Recipe
    report: FitReport
    images: TrainingImages
    held_out: TrainingImages
    learnt: frozenset[bytes]
    fingerprint: str
    labels: int
    serving_id: int | None
    serving: Serving | None
    started_from: int | None
    started: float

    def saved_as(
        self, work: Context, version: ModelVersion, images: VersionImages, compared_with: int | None
    ) -> New:
        """What is to be saved of it; see `New`."""
        metrics = self.report.metrics
        return New(
            work.control, self.network, version, metrics, images, compared_with, self.committee
        )


def run(work: Context) -> str:
    """Train on all labels, then begin the next round."""
    started = time.monotonic()
    ensure_read(work)
    with work.services.store.reading() as session:
        # What comes while the labels are read may be too late for them, and counts as new.
        labelled = count_labelled(session, work.project.id)
        known = labelled_as(session, work.project.id)
    submitted = read_submitted(work)
    with work.services.store.transaction() as session:
        session.get_one(Project, work.project.id).training_labels = labelled
        note_learnt(session, work.project.id, marks_of(work, submitted), known)
    made, without = [], []
    for part in work.parts(work.controls):
        full = not work.settings.trains_head
        trained = learn(part, read_labels(part, submitted), full, part.stop, started)
        if isinstance(trained, str):
            without.append(part.about(trained))
        else:
            version, images = compare(part, trained, trained.serving)
            made.append(trained.saved_as(part, version, images, trained.serving_id))
        started = time.monotonic()
    if not made:
        return _begin_without(work, "; ".join(without))
    return "; ".join([save(work, made), *(f"not trained: {why}" for why in without)])


def learn(
    work: Context, labels: Labels, full: bool, stop: Callable[[], bool], started: float
) -> Trained | str:
    """Train a network on labels.

    Args:
        work: the running job.
        labels: as they were read.
        full: whether all weights are trained, and not only a head.
        stop: asked between the steps of the training.
        started: when reading them began, by ``time.monotonic``.

    Returns:
        The network; or why nothing was trained, in words.
    """
    truths = labels.truths
    needed = least_classes(work.control)
    short = too_few(truths.values(), work.settings.min_labels, needed)
    if short is not None:
        note_unread(work, labels)
        return short
    device = choose_device(work.services.config.device)
    images = labelled_images(work, truths)
    serving_id, serving = serving_model(work, device)
    to_continue = None if serving is None else serving.network
    network, continues = network_to_train(work, images, to_continue, device, full)
    read = images.read(network, lambda share: work.report(READING * share, "reading the images"))
    images = read.images
    # People can label other images meanwhile, so a training does not wait for ever.
    refuse_if_away(work, read.problems, len(truths), needs_one=False)
    record_problems(work, read.problems)
    note_unread(work, labels, read)
    note_changed(work, read, network.seen_size, network.learns_turns)
    short = too_few((item.truth for item in images.items), needed, needed)
    if short is not None:
        return f"{len(read.problems)} images could not be read. {short}"
    started_from = serving_id if continues else None
    mark = _fingerprint(work, images, network)
    if _is_newest(work, mark, started_from):
        return "nothing has changed since the newest model version"
    begun_with = _begun_with(serving, images) if continues else frozenset()
    train, held_out = split(images, work.settings.held_out, begun_with)
    recipe = recipe_of(work.settings)
    report = engine_of(work).fit(
        network,
        train.prepared_for(network),
        held_out.prepared_for(network),
        recipe,
        _progress(work),
        stop,
    )
    committee = None
    if opinions_of(work.settings.selector) == "committee" and isinstance(
        network, ClassificationHead
    ):
        committee = Committee.train(
            network, train.prepared_for(network), work.settings.seed, stop=stop
        )
    return Trained(
        network=network,
        committee=committee,
        recipe=recipe,
        report=report,
        images=images,
        held_out=held_out,
        learnt=begun_with | {item.content for item in train.items},
        fingerprint=mark,
        labels=len(truths),
        serving_id=serving_id,
        serving=serving,
        started_from=started_from,
        started=started,
    )


def _begun_with(serving: Serving | None, images: TrainingImages) -> frozenset[bytes]:
    """The images that the serving version has learnt from; if that is not known, all of them."""
    if serving is None or serving.images is None:
        return frozenset(item.content for item in images.items)
    return serving.images.learnt


def compare(
    work: Context, trained: Trained, serving: Serving | None
) -> tuple[ModelVersion, VersionImages]:
    """A model version of what was trained, which serves unless it is worse than the serving one."""
    work.report(READING + FITTING, "comparing with the serving model")
    network, held_out = trained.network, trained.held_out
    judged = judge_images(network, trained.images, trained.recipe, work.stop)
    paired = before = None
    if serving is not None:
        paired = compare_with_serving(
            network, judged, serving, trained.images, held_out, work.control, work.stop
        )
        before = _metrics_of(serving, held_out, work)
    metrics = trained.report.metrics
    verdict = judge(metrics, paired, work.settings.tolerance, first=serving is None)
    version = ModelVersion(
        project_id=work.project.id,
        architecture=network.manifest.architecture,
        origin=_origin(work, network),
        classes=list(network.classes),
        fingerprint=trained.fingerprint,
        labels=trained.labels,
        metrics=metrics.overall() if metrics else {},
        serving_metrics=before.overall() if before else None,
        started_from=trained.started_from,
        promoted=verdict.promoted,
        verdict=verdict.why,
        seconds=time.monotonic() - trained.started,
    )
    return version, VersionImages(trained.learnt, judged)


def _origin(work: Context, network: TaskNetwork) -> dict[str, str] | None:
    """What a network began from, without the places of folders on the server."""
    if network.manifest.origin is None:
        return None
    found: dict[str, str] = asdict(network.manifest.origin)
    config = work.services.config
    folders = {config.data_folder: "the data folder", config.weights_folder: "the weights folder"}
    for folder, said in folders.items():
        if folder is not None:
            found = {name: text.replace(str(folder), said) for name, text in found.items()}
    return found


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
    size = manifest.image_size if manifest.tile is None else (manifest.image_size, manifest.tile)
    start = (manifest.architecture, backbone, network.device.type, size)
    more = (settings.pretrained, settings.weights, settings.held_out, settings.warm_start)
    chosen = " ".join(map(str, (*start, *more)))
    digests = [f"{item.truth.digest()} {item.content.hex()}" for item in images.items]
    ids = [item.task_id for item in images.items]
    kind = work.control.task if work.control.multiple else work.control.tag
    classes = (kind, *network_classes(work.control, settings))
    return fingerprint(ids, digests, recipe_of(settings), chosen, classes)


def _is_newest(work: Context, mark: str, started_from: int | None) -> bool:
    """Whether a training would repeat the newest version, or one that it started from."""
    with work.services.store.reading() as session:
        newest = session.scalars(
            select(ModelVersion)
            .filter_by(project_id=work.project.id)
            .where(of_control(work.control.from_name))
            .order_by(ModelVersion.number.desc())
        ).first()
    if newest is None or newest.fingerprint != mark:
        return False
    return started_from in (newest.id, newest.started_from)


def serving_model(work: Context, device: torch.device) -> tuple[int | None, Serving | None]:
    """The serving version's id, and its model with the current classes if it is for this task."""
    with work.services.store.reading() as session:
        served = serving_of(session, work.project.id, work.controls).get(work.control.from_name)
        if served is None:
            return None, None
        serving, number = served.id, served.number
        images = VersionImages.read(session, serving)
    try:
        folder = work.services.config.version_folder(work.project.id, number)
        network = load_network(folder, device, sources=work.services.weight_sources)
    except ModelError:
        # Another process may have found the damage before, and let another version serve.
        serve_last_good(work.services, work.project.id)
        with work.services.store.reading() as session:
            if session.get_one(ModelVersion, serving).serves:
                raise
        return serving_model(work, device)
    if network.task != work.control.task:
        return serving, None
    known, classes = network.classes, network_classes(work.control, work.settings)
    if known != classes:
        network = network.with_classes(classes, work.control.former_names(known))
    return serving, Serving(network, known, images)


def network_to_train(
    work: Context,
    images: TrainingImages,
    serving: TaskNetwork | None,
    device: torch.device,
    full: bool,
) -> tuple[TaskNetwork, bool]:
    """The network, and whether it is the serving one, to be fine-tuned, instead of a new one.

    A head always starts from scratch, which takes seconds; its backbone never changes.
    """
    settings, task = work.settings, work.control.task
    if full:
        architecture, size = settings.network, settings.image_size
        sizes = images.sizes(SIZES_LOOKED_AT) if size is None else []
        architecture, size = choose_network(
            task,
            device,
            sizes,
            architecture,
            size,
            "full",
            work.services.weight_sources,
            objects=tells_objects_apart(work.control, settings),
        )
        if serving is not None and settings.warm_start:
            manifest = serving.manifest
            if (manifest.architecture, manifest.image_size) == (architecture, size):
                return copy.deepcopy(serving), True
        return new_network(work, device, architecture, size), False
    return new_network(work, device), False


def new_network(
    work: Context,
    device: torch.device,
    architecture: str | None = None,
    image_size: int | None = None,
) -> TaskNetwork:
    """An untrained network for the project, by its settings where no more is given.

    Raises:
        ModelError: the weights that it begins from are not available.
    """
    settings = work.settings
    return make_network(
        task=work.control.task,
        architecture=architecture or settings.network,
        classes=network_classes(work.control, settings),
        image_size=image_size or settings.image_size,
        device=device,
        seed=settings.seed,
        pretrained=settings.pretrained,
        sources=work.services.weight_sources,
        weights_file=work.services.config.weights_file(settings.weights),
        tile=settings.tile if work.control.task in IN_TILES else None,
    )


def _progress(work: Context) -> Callable[[FitProgress], None]:
    def report(fit: FitProgress) -> None:
        metric = "" if fit.metric is None else f", held-out metric {fit.metric:.3f}"
        work.report(
            READING + FITTING * fit.share, f"training, epoch {fit.epoch} of {fit.epochs}{metric}"
        )

    return report
