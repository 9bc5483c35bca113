"""A summary of each selector's curve, and its comparison with random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cdal.benchmark.report.record import Record, Run
from cdal.benchmark.report.statistics import (
    Band,
    PairedTest,
    area,
    band,
    interval_of_labels,
    labels_to_reach,
    mean_curve,
    paired_test,
)

BASELINE = "random"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A selector against random, over the seeds with which both reached the last budget.

    Attributes:
        seeds: number of these seeds.
        target: random's metric at the last budget, mean over the seeds.
        labels: number of labels at which the selector's mean curve first reaches the target; None
            if it never does.
        interval: the ends of the 95% interval of ``labels``; see ``interval_of_labels``.
        area: test of the normalised area under the curve; None for a curve of one point.
        final: test of the metric at the last budget.
    """

    seeds: int
    target: float
    labels: float | None
    interval: tuple[float, float] | None
    area: PairedTest | None
    final: PairedTest


@dataclass(frozen=True, slots=True)
class Summary:
    """One selector's results.

    Attributes:
        selector: its label.
        runs: number of runs, finished or not.
        complete: number of runs that reached the last budget.
        curve: the metric by number of labels, over the runs that got there.
        area: normalised, over the complete runs; None without any, or for a curve of one point.
        comparison: None for random itself, and if no seed is complete with both.
    """

    selector: str
    runs: int
    complete: int
    curve: Mapping[int, Band]
    area: Band | None
    comparison: Comparison | None


def summarise(record: Record) -> tuple[Summary, ...]:
    """Summarise each selector that has been measured, in the order of the record."""
    made = (_summary(record, selector) for selector in record.selectors)
    return tuple(summary for summary in made if summary.curve)


def _summary(record: Record, selector: str) -> Summary:
    runs = record.of(selector)
    complete = record.complete(selector)
    curve = {}
    for labelled in record.budgets:
        values = [run.curve[labelled] for run in runs.values() if labelled in run.curve]
        if values:
            curve[labelled] = band(values)
    return Summary(
        selector=selector,
        runs=len(runs),
        complete=len(complete),
        curve=curve,
        area=_mean_area(complete),
        comparison=_comparison(record, selector),
    )


def _mean_area(runs: Mapping[int, Run]) -> Band | None:
    areas = [found for run in runs.values() if (found := area(run.curve)) is not None]
    return band(areas) if areas else None


def _comparison(record: Record, selector: str) -> Comparison | None:
    own, random = record.complete(selector), record.complete(BASELINE)
    seeds = sorted(own.keys() & random.keys())
    if selector == BASELINE or not seeds:
        return None
    curves = [own[seed].curve for seed in seeds]
    against = [random[seed].curve for seed in seeds]
    last = record.budgets[-1]
    target = mean_curve(against)[last]
    return Comparison(
        seeds=len(seeds),
        target=target,
        labels=labels_to_reach(mean_curve(curves), target),
        interval=_interval(curves, against),
        area=_compare_areas(curves, against),
        final=paired_test([curve[last] for curve in curves], [curve[last] for curve in against]),
    )


def _interval(
    curves: list[dict[int, float]], against: list[dict[int, float]]
) -> tuple[float, float] | None:
    same = len({tuple(sorted(curve)) for curve in (*curves, *against)}) == 1
    return interval_of_labels(curves, against) if same else None


def _compare_areas(
    curves: list[dict[int, float]], against: list[dict[int, float]]
) -> PairedTest | None:
    areas = [area(curve) for curve in curves]
    others = [area(curve) for curve in against]
    known = [value for value in areas if value is not None]
    known_others = [value for value in others if value is not None]
    # All curves end at the same budget; areas compare only if they also start at the same one.
    if len(known) < len(areas) or len(known_others) < len(others):
        return None
    if len({min(curve) for curve in (*curves, *against)}) > 1:
        return None
    return paired_test(known, known_others)
