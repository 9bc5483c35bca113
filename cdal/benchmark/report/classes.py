"""Classes: how well each is recognised at the end, and how often it is among the picks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from cdal.benchmark.report.record import Record, Run
from cdal.benchmark.report.statistics import Band, band
from cdal.models import BACKGROUND

Counts = Mapping[str, Mapping[int, int]]
"""For each image of a pool, by name: the count of each class that occurs in it."""


RARE = 0.5
"""A class is rare if its share is less than this part of an equal share."""


@dataclass(frozen=True, slots=True)
class PerClass:
    """Scores at the last budget, over the runs that came there.

    Attributes:
        classes: those that have a score with any selector, in the order of the record.
        selectors: those with a complete run.
        scores: by (class, selector); absent if no run has one.
    """

    classes: tuple[str, ...]
    selectors: tuple[str, ...]
    scores: Mapping[tuple[str, str], Band]


def per_class(record: Record) -> PerClass:
    """Collect the scores of the last step of every complete run."""
    scores = {}
    names: dict[str, None] = {}
    for selector in record.selectors:
        for name, values in _values(record.complete(selector)).items():
            names[name] = None
            scores[name, selector] = band(values)
    selectors = tuple(name for name in record.selectors if record.complete(name))
    return PerClass(tuple(names), selectors, scores)


@dataclass(frozen=True, slots=True)
class PickedClasses:
    """The classes of the images that each selector had labelled at the end.

    Attributes:
        classes: names of the C classes.
        labelled: number of labelled images.
        pool: share of each class in the whole pool, (C,).
        shares: the share of each class by selector, (C,), mean over the seeds.
        evenness: by selector, from 0 (a single class) to 1 (all classes equally frequent).
    """

    classes: tuple[str, ...]
    labelled: int
    pool: tuple[float, ...]
    shares: Mapping[str, tuple[float, ...]]
    evenness: Mapping[str, Band]


def picked_classes(record: Record, counts: Counts) -> PickedClasses | None:
    """The classes of the labelled images at the last budget.

    Args:
        record: of the benchmark.
        counts: of the classes in the images.

    Returns:
        None if the counts lack an image, or no run reached the last budget.
    """
    # Background is not an annotated class: it comes last, and is not counted.
    classes = tuple(str(name) for name in record.dataset["classes"] if name != BACKGROUND)
    runs = {name: list(record.complete(name).values()) for name in record.selectors}
    runs = {name: finished for name, finished in runs.items() if finished}
    picked = {image for own in runs.values() for run in own for image in _labelled(run)}
    if not runs or not picked <= counts.keys():
        return None
    shares = {
        name: [_shares(_labelled(run), counts, len(classes)) for run in finished]
        for name, finished in runs.items()
    }
    return PickedClasses(
        classes,
        record.budgets[-1],
        _shares(list(counts), counts, len(classes)),
        {
            name: tuple(fmean(column) for column in zip(*rows, strict=True))
            for name, rows in shares.items()
        },
        {name: band([evenness(row) for row in rows]) for name, rows in shares.items()},
    )


@dataclass(frozen=True, slots=True)
class RareClasses:
    """The classes that are less than half as frequent in the pool as if all were equally so.

    Attributes:
        classes: their names.
        selectors: those with a complete run.
        budgets: every number of labels at which there is a score.
        in_pool: their share of what could be labelled in the pool.
        shares: the same of what is labelled at the last budget, by selector.
        scores: their mean score by (selector, labels), over the complete runs.
        curves: the mean score of each by (class, selector), by number of labels.
    """

    classes: tuple[str, ...]
    selectors: tuple[str, ...]
    budgets: tuple[int, ...]
    in_pool: float
    shares: Mapping[str, Band]
    scores: Mapping[tuple[str, int], Band]
    curves: Mapping[tuple[str, str], Mapping[int, float]]


def rare_classes(record: Record, counts: Counts) -> RareClasses | None:
    """Collect what became of the rare classes; None without any, see also ``picked_classes``."""
    picked = picked_classes(record, counts)
    if picked is None:
        return None
    rows = [row for row, share in enumerate(picked.pool) if share < RARE / len(picked.classes)]
    rare = tuple(picked.classes[row] for row in rows)
    if not rare:
        return None
    shares, scores = {}, {}
    curves: dict[tuple[str, str], dict[int, float]] = {}
    for selector in picked.shares:
        runs = list(record.complete(selector).values())
        of_runs = [_shares(_labelled(run), counts, len(picked.classes)) for run in runs]
        shares[selector] = band([sum(of_run[row] for row in rows) for of_run in of_runs])
        for labelled in record.budgets:
            steps = [step for run in runs for step in run.steps if step.labelled == labelled]
            known = [[s for name in rare if (s := step.per_class.get(name)) is not None]
                     for step in steps]  # fmt: skip
            if steps and all(known):
                scores[selector, labelled] = band([fmean(each) for each in known])
            for name in rare:
                of_class = [s for step in steps if (s := step.per_class.get(name)) is not None]
                if of_class:
                    curves.setdefault((name, selector), {})[labelled] = fmean(of_class)
    return RareClasses(
        rare,
        tuple(picked.shares),
        tuple(sorted({labelled for _, labelled in scores})),
        sum(picked.pool[row] for row in rows),
        shares,
        scores,
        curves,
    )


def evenness(shares: Sequence[float]) -> float:
    """The entropy of shares, relative to that of equal shares (Pielou's evenness)."""
    if len(shares) < 2:
        return 1.0
    return -sum(p * math.log(p) for p in shares if p > 0) / math.log(len(shares))


def _labelled(run: Run) -> list[str]:
    return [name for step in run.steps for name in step.picked]


def _shares(images: Sequence[str], counts: Counts, classes: int) -> tuple[float, ...]:
    totals = [0] * classes
    for image in images:
        for index, count in counts[image].items():
            totals[index] += count
    whole = max(1, sum(totals))
    return tuple(total / whole for total in totals)


def _values(runs: Mapping[int, Run]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for run in runs.values():
        for name, score in run.steps[-1].per_class.items():
            if score is not None:
                values.setdefault(name, []).append(score)
    return values
