"""Paired comparison of two networks on the same images, with a randomisation test.

If two networks are equally good, it is a matter of chance which of the two results on an image is
whose. So the results are swapped at random, image by image, and the observed drop is compared with
those that arise (Fisher; Good, Permutation, Parametric and Bootstrap Tests of Hypotheses, 2005).
The test is exact for every metric and number of images; for accuracy it is McNemar's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cdal.backend.loop.training_images import TrainingImages
from cdal.models import DetectionNetwork, MultilabelNetwork, TaskNetwork, UnlabelledError
from cdal.models.detection.metrics import resampled_precision

SWAPS = 2000

SWAPS_OF_BOXES = 200
"""Each takes two mean average precisions, of a hundredth of a second each."""

AT_ONCE = 100
"""Swaps computed at once; bounds the memory where there are many classes."""

Tallies = npt.NDArray[np.float64]
"""For each of N images and C classes: how many were right, how many there are, and how many were
predicted, (N, 3, C)."""

Swapped = npt.NDArray[np.bool_]
"""For each of B cases, whether an image's results are swapped, (B, N)."""

Scores = Callable[[Swapped], npt.NDArray[np.float64]]
"""The metric of the new network and of the old one, (B, 2), in each of B cases."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Two networks on the same images.

    Attributes:
        metric: its name.
        images: how many.
        before: the old network's value.
        after: the new network's.
        chance: how often a drop this large or larger arises between equally good networks; half
            of those that are equally large count (the mid-p value). 1 if there is no drop.
        how: on what, in words.
    """

    metric: str
    images: int
    before: float
    after: float
    chance: float
    how: str


def compare(metric: str, scores: Scores, images: int, swaps: int, how: str) -> Paired:
    """Compare two networks, see `Paired`."""
    after, before = scores(np.zeros((1, images), np.bool_))[0].tolist()
    drop, larger, equal = before - after, 0, 0
    if drop <= 0:
        return Paired(metric, images, before, after, 1.0, how)
    draws = np.random.default_rng(0)
    for start in range(0, swaps, AT_ONCE):
        cases = min(AT_ONCE, swaps - start)
        both = scores(draws.random((cases, images)) < 0.5)
        drops = both[:, 1] - both[:, 0]
        same = np.isclose(drops, drop, rtol=0, atol=1e-9)
        equal += int(same.sum())
        larger += int(((drops > drop) & ~same).sum())
    return Paired(metric, images, before, after, (larger + equal / 2) / swaps, how)


def compare_networks(
    new: TaskNetwork,
    old: TaskNetwork,
    images: TrainingImages,
    stop: Callable[[], bool],
) -> Paired:
    """Compare two networks of the same classes on images that neither has learnt from."""
    swaps = SWAPS_OF_BOXES if isinstance(new, DetectionNetwork) else SWAPS
    scores = _scores(new, old, images, stop)
    return compare(new.main_metric, scores, len(images), swaps, "held-out images")


def _scores(
    new: TaskNetwork, old: TaskNetwork, images: TrainingImages, stop: Callable[[], bool]
) -> Scores:
    if isinstance(new, DetectionNetwork) and isinstance(old, DetectionNetwork):
        found = _found(new, images, stop), _found(old, images, stop)
        most = max(new.most_boxes, old.most_boxes)
        return lambda swapped: _box_scores(*found, len(new.classes), swapped, stop, most)
    tallies = tallies_of(new, images, stop), tallies_of(old, images, stop)
    if new.main_metric == "accuracy":
        tallies = tallies[0].sum(2, keepdims=True), tallies[1].sum(2, keepdims=True)
    return lambda swapped: tally_scores(*tallies, new.main_metric, swapped)


def tallies_of(network: TaskNetwork, images: TrainingImages, stop: Callable[[], bool]) -> Tallies:
    """What a network makes of each image."""
    if isinstance(network, MultilabelNetwork):
        logits, there = network.judged(network.examples(images.prepared_for(network), stop), stop)
        found = logits >= 0  # a probability of a half
        return torch.stack([found & there, there, found], 1).double().numpy()
    tallies = np.zeros((len(images), 3, len(network.classes)))
    for row in range(len(images)):
        one = images.take([row]).prepared_for(network)
        try:
            confusion = np.array(network.evaluate(one, stop).confusion, np.float64)
        except UnlabelledError:  # too little of it has a label
            continue
        tallies[row] = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return tallies


def tally_scores(
    new: Tallies, old: Tallies, metric: str, swapped: Swapped
) -> npt.NDArray[np.float64]:
    """See `Scores`; the metric is "accuracy", "macro_f1" or "miou"."""
    n, _, c = new.shape
    moved = (swapped.astype(np.float64) @ (old - new).reshape(n, 3 * c)).reshape(-1, 3, c)
    sums = new.sum(0) + moved, old.sum(0) - moved
    return np.column_stack([value_of(each, metric) for each in sums])


def value_of(sums: npt.NDArray[np.float64], metric: str) -> npt.NDArray[np.float64]:
    """The metric, (B,), from sums of tallies over images, (B, 3, C)."""
    right, there, predicted = sums[:, 0], sums[:, 1], sums[:, 2]
    if metric == "accuracy":
        share: npt.NDArray[np.float64] = right.sum(1) / np.maximum(there.sum(1), 1)
        return share
    if metric == "macro_f1":
        f1 = np.where(there > 0, 2 * right / np.maximum(there + predicted, 1), 0.0)
        mean: npt.NDArray[np.float64] = f1.sum(1) / np.maximum((there > 0).sum(1), 1)
        return mean
    overlaps = np.where(there > 0, right / np.maximum(there + predicted - right, 1), 0.0)
    means: npt.NDArray[np.float64] = overlaps.sum(1) / np.maximum((there > 0).sum(1), 1)
    return means


def compare_judgements(
    truths: Mapping[bytes, int], new: Mapping[bytes, int], old: Mapping[bytes, int]
) -> Paired | None:
    """Compare judgements of images by their accuracy; None if no image was judged by both.

    Args:
        truths: the class of each image.
        new: the classes that the new version's heads give images they have not learnt from.
        old: the same of the old version; with the same indices.
    """
    both = sorted(truths.keys() & new.keys() & old.keys())
    if not both:
        return None
    tallies = [np.zeros((len(both), 3, 1)) for _ in range(2)]
    for judged, tally in zip((new, old), tallies, strict=True):
        tally[:, 0, 0] = [judged[content] == truths[content] for content in both]
        tally[:, 1:, 0] = 1
    return compare(
        "accuracy",
        lambda swapped: tally_scores(tallies[0], tallies[1], "accuracy", swapped),
        len(both),
        SWAPS,
        "labelled images, cross-validated",
    )


Found = tuple[list[dict[str, Tensor]], list[Tensor]]
"""The boxes that were found in each image, and those that are there."""


def _found(network: DetectionNetwork, images: TrainingImages, stop: Callable[[], bool]) -> Found:
    return network.find(network.examples(images.prepared_for(network), stop), stop)


def _box_scores(
    new: Found,
    old: Found,
    classes: int,
    swapped: Swapped,
    stop: Callable[[], bool],
    most: int,
) -> npt.NDArray[np.float64]:
    """See `Scores`. The boxes of an image go with its target: both are in the network's pixels."""
    found, targets = [*new[0], *old[0]], [*new[1], *old[1]]

    def precisions(chosen: Swapped) -> list[float]:
        counts = np.concatenate((~chosen, chosen), 1).astype(int)
        return resampled_precision(found, targets, classes, counts.tolist(), stop, most)

    return np.column_stack((precisions(swapped), precisions(~swapped)))


def truths_by_content(images: TrainingImages, labels: Sequence[str]) -> dict[bytes, int]:
    """The class of each classified image, by its content; without those of two classes."""
    names: dict[bytes, set[str]] = {}
    for item in images.items:
        names.setdefault(item.content, set()).update(item.truth.classes)
    index = {label: number for number, label in enumerate(labels)}
    return {content: index[next(iter(of))] for content, of in names.items() if len(of) == 1}
