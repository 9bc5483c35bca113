"""How many labels selection has saved: an estimate and its interval, by bootstrap.

Model versions of growing numbers of labels make a learning curve. A model that was trained on the
images drawn at random alone is worth some point of that curve, which selection has reached with
fewer labels, or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Confusions = npt.NDArray[np.float64]
"""The confusion matrix of each of N images, (N, C, C)."""

LEAST_IMAGES = 10
"""Fewer held-out images drawn at random than this give no estimate."""

RESAMPLES = 1000

RESAMPLES_OF_BOXES = 200
"""Each one is a mean average precision over all boxes."""

INTERVAL = (5.0, 95.0)


@dataclass(frozen=True, slots=True)
class Measured:
    """A model's quality on held-out images, and on bootstrap samples of them.

    Attributes:
        labels: how many it was trained with, including the held-out ones.
        values: its metric on each of B samples, (B,); the first sample is the images themselves.
    """

    labels: int
    values: npt.NDArray[np.float64]


def draw_samples(images: int, task: str, seed: int = 0) -> npt.NDArray[np.int64]:
    """How often each of N images is in each bootstrap sample, (B, N); once in the first one."""
    count = RESAMPLES_OF_BOXES if task == "detection" else RESAMPLES
    chances = np.full(images, 1 / images)
    draws = np.random.default_rng(seed).multinomial(images, chances, size=count)
    return np.vstack((np.ones((1, images), np.int64), draws))


def estimate(
    versions: Sequence[Measured], random: Measured, metric: str, images: int
) -> dict[str, Any]:
    """How many labels selection has saved, as JSON data.

    Args:
        versions: model versions, by number of labels.
        random: the model of random labels alone, on the same samples.
        metric: its name.
        images: N, held-out images of which samples were drawn.

    Returns:
        "saved", an estimate, with "low" and "high", the ends of its 90% interval by bootstrap over
        the held-out images; "needed", the selected labels that are worth the random ones;
        "at_least" and "at_most", whether the curve begins above or ends below the random model, so
        that the estimate is only a bound.
    """
    labels = [version.labels for version in versions]
    curves = np.column_stack([version.values for version in versions])
    wanted = random.values
    needed = np.array(
        [labels_needed(labels, curve, value) for curve, value in zip(curves, wanted, strict=True)]
    )
    saved = random.labels - needed
    low, high = np.percentile(saved[1:], INTERVAL)
    best = curves[0].max()
    return {
        "metric": metric,
        "images": images,
        "random": {"labels": random.labels, "value": float(wanted[0])},
        "curve": [
            {"labels": n, "value": float(value)} for n, value in zip(labels, curves[0], strict=True)
        ],
        "needed": float(needed[0]),
        "saved": float(saved[0]),
        "low": float(low),
        "high": float(high),
        "at_least": bool(wanted[0] <= curves[0, 0]),
        "at_most": bool(wanted[0] > best),
    }


def labels_needed(labels: Sequence[int], curve: Sequence[float], value: float) -> float:
    """The number of labels at which a curve first reaches a value, interpolated linearly.

    The curve counts as never falling, since a better model could have been kept. Beyond its ends,
    the answer is its first or last number of labels.
    """
    highest = np.maximum.accumulate(np.asarray(curve, np.float64))
    at = int(np.searchsorted(highest, value, side="left"))
    if at == 0:
        return float(labels[0])
    if at == len(labels):
        return float(labels[-1])
    share = (value - highest[at - 1]) / (highest[at] - highest[at - 1])
    return float(labels[at - 1] + share * (labels[at] - labels[at - 1]))


def values_of_confusions(
    confusions: Confusions, samples: npt.NDArray[np.int64], metric: str
) -> npt.NDArray[np.float64]:
    """The metric of each sample, (B,), from the confusion matrix of each image.

    Args:
        confusions: (N, C, C).
        samples: (B, N), see ``draw_samples``.
        metric: "accuracy" or "miou".
    """
    n, c, _ = confusions.shape
    sums = (samples.astype(np.float64) @ confusions.reshape(n, c * c)).reshape(-1, c, c)
    hits = np.diagonal(sums, axis1=1, axis2=2)
    if metric == "accuracy":
        total = sums.sum((1, 2))
        recognised: npt.NDArray[np.float64] = hits.sum(1) / np.maximum(total, 1)
        return recognised
    union = sums.sum(1) + sums.sum(2) - hits
    there = sums.sum(2) > 0
    shares = np.where(there, hits / np.maximum(union, 1), 0.0)
    means: npt.NDArray[np.float64] = shares.sum(1) / np.maximum(there.sum(1), 1)
    return means
