"""The report of a benchmark: one self-contained page, with a picture and tables beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from cdal.benchmark.data_set import Part
from cdal.benchmark.folder import SimulationFolder
from cdal.benchmark.report.classes import (
    PickedClasses,
    RareClasses,
    per_class,
    picked_classes,
    rare_classes,
)
from cdal.benchmark.report.command_line import command_line
from cdal.benchmark.report.conclusions import conclusions, unfinished
from cdal.benchmark.report.formatting import metric_name
from cdal.benchmark.report.overlap import overlap
from cdal.benchmark.report.plots import (
    Picture,
    as_svg,
    class_bars,
    class_curves,
    learning_curves,
    overlap_matrix,
    picture,
    time_bars,
)
from cdal.benchmark.report.record import Record, read_record
from cdal.benchmark.report.seconds import seconds
from cdal.benchmark.report.showcase import map_of_picks, mixtures_of_picks
from cdal.benchmark.report.summary import Summary, summarise
from cdal.benchmark.report.tables import (
    Table,
    budget_table,
    class_table,
    comparison_table,
    overlap_table,
    picked_classes_table,
    plain,
    rare_classes_table,
    seconds_table,
)

CURVES_NOTE = (
    "Mean over the seeds with its 95% confidence band, which may extend beyond the plot with few "
    "seeds; the thin line marks what random reaches at the end."
)
MAP_NOTE = (
    "Features of the pool, laid out by t-SNE: images close together look similar to the model. "
    "Both selectors pick with the same model. Distances between groups have no meaning."
)
MIXTURES_NOTE = (
    "Regions are those of the label, which was revealed after the pick. Bars show what the model "
    "predicted before: for each class, the entropy-weighted mean of the probabilities where that "
    "class is the most probable (Eq. 1), the most uncertain first; the class itself is hatched."
)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    title: str
    note: str
    picture: Picture | None
    tables: tuple[Table, ...]


def write_report(folder: Path, pool: Part | None = None) -> Path:
    """Write ``report.html``, ``table.md`` and curves as SVG beside a ``results.json``.

    Args:
        folder: with the results, finished or not; kept scores in it are drawn as well.
        pool: the images; with kept scores, some picks are shown with their class mixtures.

    Returns:
        The page's path.

    Raises:
        BenchmarkError: there are no results, or they cannot be read.
        OSError: the files cannot be written.
    """
    record = read_record(folder / "results.json")
    summaries = summarise(record)
    counts = SimulationFolder(folder).read_counts()
    rare = rare_classes(record, counts)
    sections = [
        *_measured(record, summaries, picked_classes(record, counts), rare),
        *_shown(folder, record, pool),
    ]
    if rare is not None:
        (folder / "rare.svg").write_bytes(as_svg(class_curves(rare, record.metric)))
    if summaries:
        curves = as_svg(learning_curves(summaries, record.metric, record.pool))
        (folder / "curves.svg").write_bytes(curves)
    (folder / "table.md").write_text(_markdown(record, summaries, sections), encoding="utf-8")
    page = folder / "report.html"
    page.write_text(_html(folder, record, summaries, sections), encoding="utf-8")
    return page


def _measured(
    record: Record,
    summaries: tuple[Summary, ...],
    picks: PickedClasses | None,
    rare: RareClasses | None,
) -> list[Section]:
    if not summaries:
        return []
    name = metric_name(record.metric)
    curves = picture(
        learning_curves(summaries, record.metric, record.pool),
        f"{name} by number of labelled images, one curve per selector; figures below",
    )
    tables = (budget_table(summaries, record.metric), comparison_table(summaries, record.metric))
    sections = [Section("Learning curves", CURVES_NOTE, curves, tables)]
    classes = per_class(record)
    if classes.classes:
        bars = picture(
            class_bars(classes, record.metric), "bars of the score of each class; figures below"
        )
        table = class_table(classes, record.metric, record.budgets[-1])
        sections.append(Section("Classes", "", bars, (table,)))
    if rare is not None:
        drawn = picture(class_curves(rare, record.metric), "scores of the rare classes by labels")
        sections.append(
            Section("Rare classes", "", drawn, (rare_classes_table(rare, record.metric),))
        )
    if picks is not None:
        sections.append(Section("Classes of the picks", "", None, (picked_classes_table(picks),)))
    shared = overlap(record)
    if shared.pairs:
        matrix = picture(
            overlap_matrix(shared, shared.budgets[-1]),
            "share of picks that each pair of selectors has in common; figures below",
        )
        sections.append(Section("Overlap of picks", "", matrix, (overlap_table(shared),)))
    timed = seconds(record)
    if timed:
        bars = picture(time_bars(timed), "seconds per step by part; figures below")
        sections.append(Section("Time", "", bars, (seconds_table(timed),)))
    return sections


def _shown(folder: Path, record: Record, pool: Part | None) -> list[Section]:
    sections = []
    where = map_of_picks(folder, record)
    if where is not None:
        shown = picture(where, "t-SNE map of the pool's features, with the picks")
        sections.append(Section("Picks of the first round", MAP_NOTE, shown, ()))
    mixed = None if pool is None else mixtures_of_picks(folder, record, pool)
    if mixed is not None:
        shown = picture(mixed, "picked images with their regions, and bars of their mixtures")
        sections.append(Section("Class mixtures of picked images", MIXTURES_NOTE, shown, ()))
    return sections


def _markdown(record: Record, summaries: tuple[Summary, ...], sections: list[Section]) -> str:
    sentences = [*conclusions(summaries, record.metric), *unfinished(summaries)]
    findings = "\n".join(f"- {plain(sentence)}" for sentence in sentences) + "\n"
    tables = [table.markdown() for section in sections for table in section.tables]
    return "\n".join([findings, *tables])


def _html(
    folder: Path, record: Record, summaries: tuple[Summary, ...], sections: list[Section]
) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    text = (
        resources.files("cdal.benchmark.report").joinpath("page.html").read_text(encoding="utf-8")
    )
    data = record.dataset
    name = Path(str(record.settings.get("dataset", ""))).name
    return environment.from_string(text).render(
        title=f"Learning curves: {name or data['task']}",
        lead=(
            f"{data['task']}, {len(data['classes'])} classes, {record.pool:,} images in the "
            f"pool, {int(data['test']):,} test images."
        ),
        findings=conclusions(summaries, record.metric),
        unfinished=unfinished(summaries),
        sections=sections,
        warnings=_warnings(record),
        facts={
            "Settings": _facts(record.settings),
            "Data": _facts(data),
            "Machine": _facts(record.machine),
        },
        command=command_line(record.settings, folder),
    )


def _warnings(record: Record) -> list[str]:
    """Each warning once, with its selector and how often it was given."""
    counted = Counter(
        (run.selector, warning)
        for run in record.runs
        for step in run.steps
        for warning in step.warnings
    )
    return [
        f"{selector}: {warning}" + (f" ({count} times)" if count > 1 else "")
        for (selector, warning), count in counted.items()
    ]


def _facts(data: Mapping[str, Any]) -> dict[str, str]:
    """JSON data as rows of text."""
    return {
        str(key): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in data.items()
    }
