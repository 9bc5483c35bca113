"""The gate: whether a new model version serves, judged on images that neither has learnt from.

A new version is kept from serving if it is worse by more than the tolerance, and if equally good
versions would seldom differ so much. How often the gate errs: `measurements/gate.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cdal.backend.annotations.control import Control
from cdal.backend.loop.paired import (
    Paired,
    compare_judgements,
    compare_networks,
    truths_by_content,
)
from cdal.backend.loop.split import fold, without
from cdal.backend.loop.training_images import TrainingImages
from cdal.backend.loop.version_images import VersionImages
from cdal.models import ClassificationHead, Metrics, Recipe, TaskNetwork
from cdal.models.classification.head import cross_validate

CHANCE = 0.1
"""A drop counts if equally good versions show one as large at most this often."""

FOLDS = 5

MOST_JUDGED = 1000
"""Labelled images; with more, the held-out ones are evidence enough, and folds take a minute."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a new model version serves, and why, in words."""

    promoted: bool
    why: str


@dataclass(frozen=True, slots=True)
class Serving:
    """The serving model version.

    Attributes:
        network: with the current classes.
        classes: the names of its classes, which its judgements are indices of.
        images: what it has learnt from and judged; None if that is not known.
    """

    network: TaskNetwork
    classes: tuple[str, ...]
    images: VersionImages | None


def judge_images(
    network: TaskNetwork,
    images: TrainingImages,
    recipe: Recipe,
    stop: Callable[[], bool],
) -> dict[bytes, int]:
    """Judgements of the labelled images by heads that have not learnt from them, by content.

    There are some only where training takes a moment: for heads that classify images.
    """
    if not isinstance(network, ClassificationHead) or len(images) > MOST_JUDGED:
        return {}
    folds = [fold(item.group, FOLDS) for item in images.items]
    found = cross_validate(network, images.prepared_for(network), folds, recipe, stop)
    judged = zip(images.items, found, strict=True)
    return {item.content: index for item, index in judged if index is not None}


def compare_with_serving(
    network: TaskNetwork,
    judged: Mapping[bytes, int],
    serving: Serving,
    images: TrainingImages,
    held_out: TrainingImages,
    control: Control,
    stop: Callable[[], bool],
) -> Paired | None:
    """Compare a new version with the serving one on as many images as possible.

    Args:
        network: the new version.
        judged: its judgements of labelled images.
        serving: the serving version.
        images: all labelled images.
        held_out: those that the new version has not learnt from.
        control: knows the classes' current names.
        stop: asked meanwhile.

    Returns:
        None if there is no image that neither has learnt from, as far as is known, or no object on
        any of them.
    """
    if serving.images is None:
        return None
    fair = without(held_out, serving.images.learnt)
    indices = {label: index for index, label in enumerate(network.classes)}
    named = [indices.get(name, -1) for name in control.names_of(serving.classes)]
    before = {content: named[index] for content, index in serving.images.judged.items()}
    if judged and before:
        truths = truths_by_content(images, network.classes)
        paired = compare_judgements(truths, judged, before)
        if paired is not None and paired.images >= len(fair):
            return paired
    if network.task == "detection" and not any(item.truth.classes for item in fair.items):
        return None  # without objects, every detector has the same average precision
    return compare_networks(network, serving.network, fair, stop) if len(fair) else None


def judge(new: Metrics | None, paired: Paired | None, tolerance: float, first: bool) -> Verdict:
    """Decide whether a new version serves.

    Args:
        new: measured on its held-out images; None without any.
        paired: the comparison with the serving version; None if none was possible.
        tolerance: how much worse it may be.
        first: whether there is no version to compare it with.
    """
    if paired is None:
        if new is None:
            return Verdict(True, "serves; there are no held-out images yet to measure it on")
        measured = f"{new.main_name} {new.main:.3f} on {new.images} held-out images"
        if first:
            return Verdict(True, f"serves, as the first to be measured; {measured}")
        why = (
            "serves uncompared: no labelled image or object is known to be new to the version "
            "before it, too"
        )
        return Verdict(True, f"{why}; {measured}")
    compared = (
        f"{paired.metric} {paired.after:.3f}, before it {paired.before:.3f}, on the same "
        f"{paired.images} {paired.how}"
    )
    if paired.after >= paired.before - tolerance:
        return Verdict(True, f"serves; {compared}")
    if 0.5**paired.images / 2 > CHANCE:  # the chance of the clearest drop
        few = "an image is" if paired.images == 1 else f"{paired.images} images are"
        return Verdict(True, f"serves, since {few} too few to tell whether it is worse: {compared}")
    evidence = f"{compared}; equally good versions differ so much in {_percent(paired.chance)}"
    if paired.chance > CHANCE:
        return Verdict(True, f"serves, since the drop may be chance: {evidence}")
    return Verdict(False, f"kept but does not serve, since it is worse: {evidence}")


def _percent(share: float) -> str:
    return "less than 1% of cases" if share < 0.01 else f"{share:.0%} of cases"
