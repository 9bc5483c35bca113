"""The findings of a benchmark, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cdal.benchmark.report.formatting import metric_name, percent, probability, seeds
from cdal.benchmark.report.statistics import PairedTest
from cdal.benchmark.report.summary import BASELINE, Comparison, Summary

SIGNIFICANT = 0.05


def conclusions(summaries: Sequence[Summary], metric: str) -> tuple[str, ...]:
    """Say for each selector what it needs and gains compared with random, good or bad."""
    if not summaries:
        return ("Nothing has been measured yet.",)
    if all(summary.selector != BASELINE for summary in summaries):
        return (f"No comparison: the selector {BASELINE} was not run.",)
    last = max(labelled for summary in summaries for labelled in summary.curve)
    sentences = []
    for summary in summaries:
        if summary.comparison is not None:
            sentences.append(_sentences(summary, summary.comparison, metric, last))
        elif summary.selector != BASELINE:
            sentences.append(
                f"{summary.selector} cannot be compared yet: it and {BASELINE} have not both "
                f"reached {last:,} labels with the same seed."
            )
    return tuple(sentences) or (f"No comparison: only {BASELINE} was run.",)


def unfinished(summaries: Sequence[Summary]) -> tuple[str, ...]:
    """Say which selectors have unfinished runs."""
    return tuple(
        f"{summary.selector}: {summary.complete} of {summary.runs} runs have reached the last "
        "budget; the others are shown as far as they are done, and left out of comparisons."
        for summary in summaries
        if summary.complete < summary.runs
    )


def _sentences(summary: Summary, comparison: Comparison, metric: str, last: int) -> str:
    reached = _reached(summary, comparison, metric, last)
    if comparison.area is None:
        return f"{reached} {_chance(comparison.final, f'Its final {metric_name(metric)} is')}"
    return f"{reached} {_chance(comparison.area, 'Averaged over the curve, it is')}"


def _reached(summary: Summary, comparison: Comparison, metric: str, last: int) -> str:
    target = f"{metric_name(metric)} {percent(comparison.target)}%"
    if comparison.labels is None:
        return (
            f"{summary.selector} does not reach with {last:,} labels what {BASELINE} reaches "
            f"with as many ({target})."
        )
    needed = math.ceil(comparison.labels)
    if needed <= min(summary.curve):
        return (
            f"{summary.selector} already reaches with its first {needed:,} labels what "
            f"{BASELINE} reaches with {last:,} ({target})."
        )
    fewer = f", {1 - needed / last:.0%} fewer" if needed < last else ""
    return (
        f"{summary.selector} needs {needed:,} labels for what {BASELINE} reaches with {last:,} "
        f"({target}){fewer}."
    )


def _chance(test: PairedTest, subject: str) -> str:
    """The size of a difference, and whether it may be due to chance."""
    found = test.difference
    size = f"{100 * abs(found.mean):.1f} points"
    if found.mean == 0:
        text = f"{subject} the same as {BASELINE}"
    else:
        text = f"{subject} {size} {'above' if found.mean > 0 else 'below'} {BASELINE}"
    if found.count < 2:
        return f"{text}; with 1 seed, chance cannot be ruled out."
    if test.p is None:
        return f"{text}, by the same amount with each of {seeds(found.count)}."
    p = probability(test.p)
    evidence = f"p {p}" if p.startswith("<") else f"p = {p}"
    evidence = f"{evidence} over {seeds(found.count)}"
    if test.p < SIGNIFICANT:
        return f"{text}; {evidence}."
    return f"{text}, which may be due to chance; {evidence}."
