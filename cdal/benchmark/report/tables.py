"""The tables of a report; a table as Markdown. The report's template writes them as HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cdal.benchmark.report.classes import PerClass, PickedClasses, evenness
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
"""That have a column each."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text.

    Attributes:
        title: what it shows.
        note: how to read it.
        header: names of the columns; the first column names the rows.
        rows: each as long as the header.
    """

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """A heading, the note and the table, in GitHub's dialect; figures to the right."""
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
    """Text on one line of Markdown, of which nothing is markup."""
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
            "Mean over the seeds ± half of the 95% confidence interval. In brackets: runs that "
            "came there, where not all have."
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
    columns: tuple[tuple[str, Callable[[Comparison], str]], ...] = (
        ("area − random's", lambda c: points(c.area.difference) if c.area else ABSENT),
        ("p", lambda c: probability(c.area.p) if c.area else ABSENT),
        (f"final {name} − random's", lambda c: points(c.final.difference)),
        ("p", lambda c: probability(c.final.p)),
        ("labels for random's final", _labels),
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
            "Differences in percentage points over the seeds that both have to the end, ± half "
            "of the 95% confidence interval; p of a two-sided paired t-test over seeds, not "
            f"corrected for the number of selectors. Labels: where the mean curve first reaches "
            f"what {BASELINE} has at the end, straight between budgets."
        ),
        header=("selector", "seeds", "area", f"final {name}", *(title for title, _ in columns)),
        rows=tuple(rows),
    )


def _final(summary: Summary) -> Band | None:
    return summary.curve[max(summary.curve)] if summary.complete else None


def _labels(comparison: Comparison) -> str:
    if comparison.labels is None:
        return "not reached"
    return f"{math.ceil(comparison.labels):,}"


def seconds_table(timed: Sequence[Seconds]) -> Table:
    """How long a step takes, and how fast images go through."""
    rows = tuple(
        (
            row.selector,
            *(duration(row.parts[part]) for part in PARTS),
            percent(row.overhead),
            f"{row.trained_a_second:,.0f}" if row.trained_a_second else ABSENT,
            f"{row.scored_a_second:,.0f}" if row.scored_a_second else ABSENT,
        )
        for row in timed
    )
    return Table(
        title="Time of a step",
        note=(
            "Mean over all steps of all runs. Other: what is neither of these; its share of the "
            "whole in per cent. Images a second: trained on, each epoch counted, and scored."
        ),
        header=(
            "selector",
            *PARTS,
            "other, %",
            "trained a second",
            "scored a second",
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
    """How far every two selectors had picked the same by each budget."""
    pairs = list(dict.fromkeys((first, second) for first, second, _ in found.pairs))
    return Table(
        title="Picked by both, in per cent",
        note=(
            "Images that both had picked by then, of those that either had; the initial set left "
            "out; mean over the seeds."
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


def picked_classes_table(found: PickedClasses) -> Table:
    """Of which classes the labelled images are."""
    few = len(found.classes) <= MOST_CLASSES
    return Table(
        title=f"Classes among {found.labelled:,} labelled images, in per cent",
        note=(
            "Of all images, boxes or pixels that are labelled in them; mean over the seeds. "
            "Evenness: 100 where all classes are equally frequent, 0 where there is one alone."
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
