"""Savings: train on the labels drawn at random alone, and see what the others have saved."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sqlalchemy import select

from cdal.backend.loop.context import Context
from cdal.backend.loop.labelled_set import (
    labelled_images,
    least_classes,
    read_labels,
    read_submitted,
    too_few,
)
from cdal.backend.loop.labels_saved import (
    LEAST_IMAGES,
    Measured,
    draw_samples,
    estimate,
    values_of_confusions,
)
from cdal.backend.loop.paired import tallies_of, value_of
from cdal.backend.loop.rounds import is_random
from cdal.backend.loop.split import split, without
from cdal.backend.loop.train import network_to_train, recipe_of
from cdal.backend.loop.training_images import LabelledImage, TrainingImages
from cdal.backend.loop.version_images import VersionImages
from cdal.backend.project_config import network_classes
from cdal.backend.store.queries import of_control
from cdal.backend.store.tables import (
    ModelVersion,
    Pick,
    RandomLabel,
    Round,
    Savings,
    Submission,
    now,
)
from cdal.models import (
    DetectionNetwork,
    ModelError,
    MultilabelNetwork,
    TaskNetwork,
    choose_device,
    fit,
    load_network,
)
from cdal.models.detection.metrics import resampled_precision

MOST_VERSIONS = 20
"""So many versions make the curve: each is measured again on the current images."""


def run(work: Context) -> str:
    """Measure the random labels' worth, and record it; or record why that is not possible yet."""
    truths = read_labels(work, read_submitted(work)).truths
    drawn = record_random_labels(work)
    images = labelled_images(work, {t: truth for t, truth in truths.items() if t in drawn})
    needed = least_classes(work.control)
    why = _too_early(work, images.items, needed)
    if why is not None:
        return _record(work, {"known": False, "why": why})
    device = choose_device(work.services.config.device)
    folder = work.services.config.project_folder(work.project.id) / "savings"
    network, _ = network_to_train(
        work, images, _last(folder, device, work), device, not work.settings.trains_head
    )
    images = images.read(network, lambda share: work.report(0.1 * share, "reading")).images
    train, held_out = split(images, work.settings.held_out)
    rows = _comparable(work, network)
    held_out = without(held_out, {content for _, record in rows for content in record.learnt})
    if len(held_out) < LEAST_IMAGES:
        return _record(work, {"known": False, "why": _too_few_held_out(len(held_out))})
    fit(
        network,
        train.prepared_for(network),
        held_out.prepared_for(network),
        recipe_of(work.settings),
        lambda fit: work.report(0.1 + 0.6 * fit.share, "training on the random labels alone"),
        work.stop,
    )
    measure = _Measure(work, held_out, network.main_metric)
    random = Measured(len(images), measure(network))
    versions = _versions(work, [row for row, _ in rows], network, measure, device)
    if len(versions) < 2:
        why = "two model versions that kept the held-out images apart are needed"
        return _record(work, {"known": False, "why": why})
    result = {
        "known": True,
        "why": None,
        **estimate(versions, random, measure.metric, len(held_out)),
    }
    shutil.rmtree(folder, ignore_errors=True)
    network.save(folder, _mark(work))
    return _record(work, result)


def record_random_labels(work: Context) -> set[int]:
    """Tasks that were drawn at random and labelled in the round that drew them.

    One that is labelled later was picked by a selector, so it is no longer a random draw.
    """
    with work.services.store.reading() as session:
        rounds = session.scalars(select(Round).filter_by(project_id=work.project.id)).all()
        labelled = session.execute(
            select(Submission.task_id, Submission.labelled_at).filter_by(project_id=work.project.id)
        )
        at = {task_id: moment for task_id, moment in labelled}  # noqa: C416 — rows are no pairs
        known = set(
            session.scalars(select(RandomLabel.task_id).filter_by(project_id=work.project.id))
        )
        drawn: set[int] = set()
        for one in rounds:
            picks = session.execute(
                select(Pick.task_id, Pick.reason).filter_by(round_id=one.id, state="queued")
            )
            for task_id, reason in picks:
                if task_id not in at or not is_random(reason, one.selector):
                    continue
                if one.created_at <= at[task_id] <= (one.closed_at or now()):
                    drawn.add(task_id)
    new = sorted(drawn - known)
    if new:
        with work.services.store.transaction() as session:
            session.add_all(RandomLabel(project_id=work.project.id, task_id=t) for t in new)
    return known | drawn


def _too_early(work: Context, images: Sequence[LabelledImage], needed: int) -> str | None:
    """Why there can be no estimate yet; None if the images should be read to find out."""
    short = too_few((item.truth for item in images), work.settings.min_labels, needed)
    if short is not None:
        return f"of images drawn at random, {short[:1].lower()}{short[1:].rstrip('.')}"
    return _too_few_held_out(0) if len(images) < LEAST_IMAGES else None


def _too_few_held_out(count: int) -> str:
    return (
        f"{count} of at least {LEAST_IMAGES} held-out images that were drawn at random are labelled"
    )


def _mark(work: Context) -> str:
    """What the last estimate's network is marked with: one of another split has learnt others."""
    return f"savings {work.settings.held_out}"


def _last(folder: Path, device: torch.device, work: Context) -> TaskNetwork | None:
    """The last estimate's network with the current classes, to fine-tune like the serving model."""
    classes = network_classes(work.control, work.settings)
    try:
        network = load_network(
            folder,
            device,
            classes,
            work.control.known_as,
            work.services.weight_sources,
        )
    except ModelError:
        return None
    same = network.task == work.control.task and network.manifest.data_fingerprint == _mark(work)
    return network if same else None


def _comparable(work: Context, network: TaskNetwork) -> list[tuple[ModelVersion, VersionImages]]:
    """The model versions that are compared, by number, with what they have learnt from."""
    with work.services.store.reading() as session:
        rows = session.scalars(
            select(ModelVersion)
            .filter_by(project_id=work.project.id)
            .where(of_control(work.control.from_name))
            .order_by(ModelVersion.number)
        ).all()
        # What was kept but did not serve belongs to no curve that anybody got; and one that did
        # not know all current classes, or knew others, was made for another question.
        known = _spread(
            [
                row
                for row in rows
                if row.promoted
                and sorted(row.classes) == sorted(network.classes)
                and work.services.config.version_folder(work.project.id, row.number).exists()
            ]
        )
        records = [VersionImages.read(session, row.id) for row in known]
    return [(row, record) for row, record in zip(known, records, strict=True) if record]


def _versions(
    work: Context,
    rows: Sequence[ModelVersion],
    network: TaskNetwork,
    measure: _Measure,
    device: torch.device,
) -> list[Measured]:
    """These model versions on held-out images, by their number of labels."""
    measured = []
    for done, row in enumerate(rows):
        work.report(0.7 + 0.3 * done / len(rows), f"measuring model version {row.number}")
        try:
            folder = work.services.config.version_folder(work.project.id, row.number)
            # With the classes in the current order.
            sources = work.services.weight_sources
            version = load_network(folder, device, network.classes, sources=sources)
        except ModelError:  # its weights are gone
            continue
        # Another architecture may be better or worse with the same labels.
        same = version.manifest.architecture == network.manifest.architecture
        if same and version.task == network.task:
            measured.append(Measured(row.labels, measure(version)))
    return measured


def _spread(versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    """At most `MOST_VERSIONS` of them, spread evenly from the first to the newest."""
    most = min(len(versions), MOST_VERSIONS)
    last = len(versions) - 1
    return [versions[place * last // max(1, most - 1)] for place in range(most)]


class _Measure:
    """Measures networks on the same bootstrap samples of held-out images."""

    def __init__(self, work: Context, held_out: TrainingImages, metric: str) -> None:
        self.metric = metric
        self._stop = work.stop
        self._held_out = held_out
        self._samples = draw_samples(len(held_out), work.control.task)

    def __call__(self, network: TaskNetwork) -> npt.NDArray[np.float64]:
        """The metric on each sample, (B,); see ``Measured``."""
        if isinstance(network, DetectionNetwork):
            images = network.examples(self._held_out.prepared_for(network), self._stop)
            found, targets = network.find(images, self._stop)
            return np.array(
                resampled_precision(
                    found,
                    targets,
                    len(network.classes),
                    self._samples.tolist(),
                    self._stop,
                    network.most_boxes,
                )
            )
        if isinstance(network, MultilabelNetwork):
            tallies = tallies_of(network, self._held_out, self._stop)
            sums = self._samples @ tallies.reshape(len(tallies), -1)
            return value_of(sums.reshape(-1, *tallies.shape[1:]), self.metric)
        matrices: Sequence[tuple[tuple[int, ...], ...]] = [
            network.evaluate(self._held_out.take([row]).prepared_for(network), self._stop).confusion
            for row in range(len(self._held_out))
        ]
        return values_of_confusions(np.array(matrices, np.float64), self._samples, self.metric)


def _record(work: Context, result: dict[str, object]) -> str:
    with work.services.store.transaction() as session:
        newest = session.scalars(
            select(ModelVersion.number)
            .filter_by(project_id=work.project.id)
            .order_by(ModelVersion.number.desc())
        ).first()
        session.add(Savings(project_id=work.project.id, version=newest or 0, result=result))
    if not result["known"]:
        return f"not known yet: {result['why']}"
    return f"{result['saved']:.0f} labels saved"
