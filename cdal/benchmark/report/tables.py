"""The tables of a report. Here they are written as Markdown, in ``page.html`` as HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cdal.benchmark.report.classes import PerClass, PickedClasses, RareClasses, evenness
from cdal.benchmark.report.formatting import (
    ABSENT,
    class_metric_name,
    duration,
    metric_name,
    percent,
    percent_band,
    points,
    probability,
)
from cdal.benchmark.report.overlap import Overlap
from cdal.benchmark.report.seconds import PARTS, Seconds
from cdal.benchmark.report.statistics import Band
from cdal.benchmark.report.summary import BASELINE, Comparison, Summary

MOST_CLASSES = 12
"""Most classes that get a column each."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text.

    Attributes:
        title: what the table shows.
        note: how to read it.
        header: names of the columns; the first column names the rows.
        rows: each as long as the header.
    """

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Heading, note and table in GitHub's dialect; figures are right-aligned."""
        lines = [
            f"### {plain(self.title)}",
            "",
            plain(self.note),
            "",
            _row(self.header),
            _row(("---", *("---:" for _ in self.header[1:])), escape=False),
            *(_row(row) for row in self.rows),
        ]
        return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...], *, escape: bool = True) -> str:
    return f"| {' | '.join(plain(cell) if escape else cell for cell in cells)} |"


def plain(text: str) -> str:
    """Escape text for one line of Markdown."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|$~!#":
        text = text.replace(sign, "\\" + sign)
    return text


def budget_table(summaries: Sequence[Summary], metric: str) -> Table:
    """The metric at each number of labels."""
    budgets = sorted({labelled for summary in summaries for labelled in summary.curve})
    rows = tuple(
        (f"{labelled:,}", *(_measured(summary, labelled) for summary in summaries))
        for labelled in budgets
    )
    return Table(
        title=f"By number of labels: {metric_name(metric)} in per cent",
        note=(
            "Mean over the seeds ± half of the 95% confidence interval. In brackets: the number of "
            "runs that got there, if not all did."
        ),
        header=("labels", *(summary.selector for summary in summaries)),
        rows=rows,
    )


def _measured(summary: Summary, labelled: int) -> str:
    found = summary.curve.get(labelled)
    if found is None:
        return ABSENT
    few = f" ({found.count} of {summary.runs})" if found.count < summary.runs else ""
    return percent_band(found) + few


def comparison_table(summaries: Sequence[Summary], metric: str) -> Table:
    """Each selector against random."""
    name = metric_name(metric)
    last = max((labelled for summary in summaries for labelled in summary.curve), default=0)
    columns: tuple[tuple[str, Callable[[Comparison], str]], ...] = (
        ("area − random's", lambda c: points(c.area.difference) if c.area else ABSENT),
        ("p", lambda c: probability(c.area.p) if c.area else ABSENT),
        (f"final {name} − random's", lambda c: points(c.final.difference)),
        ("p", lambda c: probability(c.final.p)),
        ("labels for random's final", _labels),
        ("labels saved", lambda c: _saved(c, last)),
    )
    rows = []
    for summary in summaries:
        found = summary.comparison
        cells = [read(found) if found else ABSENT for _, read in columns]
        rows.append(
            (
                summary.selector,
                f"{found.seeds if found else summary.complete}",
                percent_band(summary.area),
                percent_band(_final(summary)),
                *cells,
            )
        )
    return Table(
        title=f"Against {BASELINE}",
        note=(
            f"Area: under the curve of {name}, divided by its range of labels, in per cent. "
            "Differences in percentage points over the seeds that both have finished, ± half of "
            "the 95% confidence interval; p of a two-sided paired t-test over seeds, not "
            f"corrected for the number of selectors. Labels: where the mean curve first reaches "
            f"what {BASELINE} reaches at the end, linear between budgets, and how many per cent "
            "fewer these are; in brackets the 95% interval by bootstrap over the seeds, which is "
            "too narrow with few."
        ),
        header=("selector", "seeds", "area", f"final {name}", *(title for title, _ in columns)),
        rows=tuple(rows),
    )


def _final(summary: Summary) -> Band | None:
    return summary.curve[max(summary.curve)] if summary.complete else None


def _labels(comparison: Comparison) -> str:
    labels = math.inf if comparison.labels is None else comparison.labels
    return _with_interval(labels, comparison.interval, _whole)


def _saved(comparison: Comparison, last: int) -> str:
    labels = math.inf if comparison.labels is None else comparison.labels
    ends = comparison.interval and (comparison.interval[1], comparison.interval[0])
    return _with_interval(labels, ends, lambda number: _fewer(number, last))


def _with_interval(
    value: float, ends: tuple[float, float] | None, read: Callable[[float], str]
) -> str:
    if ends is None or value == ends[0] == ends[1] == math.inf:
        return read(value)
    return f"{read(value)} ({read(ends[0])} to {read(ends[1])})"


def _whole(labels: float) -> str:
    return "not reached" if math.isinf(labels) else f"{math.ceil(labels):,}"


def _fewer(labels: float, last: int) -> str:
    return "none" if math.isinf(labels) else f"{100 * (1 - labels / last):.0f}%"


def seconds_table(timed: Sequence[Seconds]) -> Table:
    """Seconds per step, and images per second."""
    rows = tuple(
        (
            row.selector,
            *(duration(row.parts[part]) for part in PARTS),
            percent(row.overhead),
            f"{row.trained_per_second:,.0f}" if row.trained_per_second else ABSENT,
            f"{row.scored_per_second:,.0f}" if row.scored_per_second else ABSENT,
        )
        for row in timed
    )
    return Table(
        title="Time per step",
        note=(
            "Mean over all steps of all runs. Other: everything else, and its share of the total "
            "in per cent. Images per second: trained on, counted once per epoch, and scored."
        ),
        header=(
            "selector",
            *PARTS,
            "other, %",
            "trained per second",
            "scored per second",
        ),
        rows=rows,
    )


def class_table(found: PerClass, metric: str, labelled: int) -> Table:
    """The score of each class at the last budget."""
    return Table(
        title=f"Each class with {labelled:,} labels: {class_metric_name(metric)} in per cent",
        note="Mean over the seeds ± half of the 95% confidence interval.",
        header=("class", *found.selectors),
        rows=tuple(
            (
                name,
                *(percent_band(found.scores.get((name, selector))) for selector in found.selectors),
            )
            for name in found.classes
        ),
    )


def overlap_table(found: Overlap) -> Table:
    """The overlap of every two selectors' picks by each budget."""
    pairs = list(dict.fromkeys((first, second) for first, second, _ in found.pairs))
    return Table(
        title="Picked by both, in per cent",
        note=(
            "Images that both had picked by then, as a share of those that either had, without the "
            "initial set; mean over the seeds."
        ),
        header=("selectors", *(f"{labelled:,} labels" for labelled in found.budgets)),
        rows=tuple(
            (
                f"{first}, {second}",
                *(percent(found.at(first, second, labelled)) for labelled in found.budgets),
            )
            for first, second in pairs
        ),
    )


def rare_classes_table(found: RareClasses, metric: str) -> Table:
    """How well the rare classes are recognised, and how often they were picked."""
    names = ", ".join(found.classes)
    return Table(
        title=f"Rare classes: mean {class_metric_name(metric)} in per cent",
        note=(
            f"Of {names}: each less than half as frequent in the pool as if all were equally "
            f"frequent. Mean over the seeds ± half of the 95% confidence interval. Last row: their "
            f"share of what is labelled at the end; they are {percent(found.in_pool)}% of the pool."
        ),
        header=("labels", *found.selectors),
        rows=(
            *(
                (
                    f"{labelled:,}",
                    *(percent_band(found.scores.get((name, labelled))) for name in found.selectors),
                )
                for labelled in found.budgets
            ),
            ("share labelled", *(percent_band(found.shares[name]) for name in found.selectors)),
        ),
    )


def picked_classes_table(found: PickedClasses) -> Table:
    """The classes of the labelled images."""
    few = len(found.classes) <= MOST_CLASSES
    return Table(
        title=f"Classes among {found.labelled:,} labelled images, in per cent",
        note=(
            "Share of all labelled images, boxes or pixels; mean over the seeds. Evenness: 100 if "
            "all classes are equally frequent, 0 if there is only one."
        ),
        header=("selector", "evenness", *(found.classes if few else ())),
        rows=(
            (
                "the whole pool",
                percent(evenness(found.pool)),
                *(percent(share) for share in (found.pool if few else ())),
            ),
            *(
                (
                    name,
                    percent_band(found.evenness[name]),
                    *(percent(share) for share in (shares if few else ())),
                )
                for name, shares in found.shares.items()
            ),
        ),
    )
