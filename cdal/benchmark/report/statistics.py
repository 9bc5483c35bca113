"""Statistics of learning curves: means, confidence bands, areas and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import integrate, stats

CONFIDENCE = 0.95
RESAMPLES = 2000
# Differences that agree to this share of their size differ only by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Band:
    """A mean over seeds and its uncertainty.

    Attributes:
        mean: over ``count`` values.
        count: at least 1.
        error: standard error of the mean; None for one value.
        margin: half the width of the 95% confidence interval of the mean, by Student's t; None
            for one value.
    """

    mean: float
    count: int
    error: float | None
    margin: float | None

    @property
    def low(self) -> float:
        return self.mean - (self.margin or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.margin or 0.0)


@dataclass(frozen=True, slots=True)
class PairedTest:
    """A comparison of two selectors with the same seeds.

    Attributes:
        difference: first minus second, mean over the seeds, with its band.
        p: two-sided p-value of the paired t-test that the true difference is 0; None with fewer
            than two seeds, or if every seed has the same difference, which the test cannot judge.
    """

    difference: Band
    p: float | None


def band(values: Sequence[float]) -> Band:
    """Mean, standard error and confidence interval of one or more values."""
    count = len(values)
    mean = float(np.mean(values))
    if count < 2:
        return Band(mean, count, None, None)
    error = float(stats.sem(values))
    return Band(mean, count, error, error * float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)))


def area(curve: Mapping[int, float]) -> float | None:
    """The area under a curve divided by its range of labels: its mean height.

    By the trapezoidal rule; None for fewer than two points.
    """
    labels = sorted(curve)
    if len(labels) < 2:
        return None
    heights = [curve[label] for label in labels]
    return float(integrate.trapezoid(heights, labels)) / (labels[-1] - labels[0])


def labels_to_reach(curve: Mapping[int, float], target: float) -> float | None:
    """The number of labels at which a curve first reaches a height, linear between its points.

    Returns:
        The curve's first number of labels if it starts that high; None if it never does.
    """
    labels = sorted(curve)
    before: int | None = None
    for label in labels:
        if curve[label] >= target:
            if before is None:
                return float(label)
            share = (target - curve[before]) / (curve[label] - curve[before])
            return before + share * (label - before)
        before = label
    return None


def interval_of_labels(
    curves: Sequence[Mapping[int, float]], against: Sequence[Mapping[int, float]]
) -> tuple[float, float] | None:
    """The 95% interval, by bootstrap over the seeds, of the labels for another's final height.

    In each sample of the seeds, the number of labels at which the mean curve first reaches the
    other's last height; infinite if it never does.

    Args:
        curves: of the selector, by seed.
        against: of the other one, with the same seeds; all have the same numbers of labels.

    Returns:
        Its ends; None with fewer than two seeds.
    """
    count = len(curves)
    if count < 2:
        return None
    labels = sorted(curves[0])
    heights = np.array([[curve[label] for label in labels] for curve in curves])
    finals = np.array([curve[labels[-1]] for curve in against])
    samples = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    needed = [
        labels_to_reach(dict(zip(labels, means, strict=True)), target)
        for means, target in zip(
            heights[samples].mean(1).tolist(), finals[samples].mean(1).tolist(), strict=True
        )
    ]
    found = [np.inf if number is None else number for number in needed]
    # Not interpolated: between a number and infinity there is nothing.
    ends = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    low, high = np.quantile(found, ends, method="inverted_cdf").tolist()
    return low, high


def mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The mean height at each number of labels that all curves have."""
    shared = set.intersection(*(set(curve) for curve in curves)) if curves else set()
    return {label: float(np.mean([curve[label] for curve in curves])) for label in sorted(shared)}


def paired_test(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Compare two selectors by their values with the same seeds, in the same order.

    Raises:
        ValueError: their lengths differ, or they are empty.
    """
    if len(first) != len(second) or not first:
        raise ValueError("a paired test needs the same number of values, at least one, of both")
    differences = np.subtract(first, second)
    result = band(differences.tolist())
    if len(first) < 2 or np.ptp(differences) <= _ROUNDING * np.abs([first, second]).max():
        return PairedTest(result, None)
    return PairedTest(result, float(stats.ttest_rel(first, second).pvalue))


def jaccard(first: set[str], second: set[str]) -> float | None:
    """The share of two sets' elements that are in both; None for two empty sets."""
    either = len(first | second)
    return len(first & second) / either if either else None
