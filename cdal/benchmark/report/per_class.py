"""How well each class is recognised in the end, selector by selector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cdal.benchmark.report.record import Record, Run
from cdal.benchmark.report.statistics import Band, band


@dataclass(frozen=True, slots=True)
class PerClass:
    """Scores at the last budget, over the runs that came there.

    Attributes:
        classes: those that have a score with any selector, in the order of the record.
        selectors: those with a complete run.
        scores: by (class, selector); none where no run has one.
    """

    classes: tuple[str, ...]
    selectors: tuple[str, ...]
    scores: Mapping[tuple[str, str], Band]


def per_class(record: Record) -> PerClass:
    """Gather the scores of the last step of every complete run."""
    scores = {}
    names: dict[str, None] = {}
    for selector in record.selectors:
        for name, values in _values(record.complete(selector)).items():
            names[name] = None
            scores[name, selector] = band(values)
    selectors = tuple(name for name in record.selectors if record.complete(name))
    return PerClass(tuple(names), selectors, scores)


def _values(runs: Mapping[int, Run]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for run in runs.values():
        for name, score in run.steps[-1].per_class.items():
            if score is not None:
                values.setdefault(name, []).append(score)
    return values
