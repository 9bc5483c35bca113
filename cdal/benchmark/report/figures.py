"""The figures and tables of the paper (CDAL, ECCV 2020), each drawn from kept results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from cdal.benchmark.data_set import Part
from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.folder import SimulationFolder
from cdal.benchmark.report.formatting import class_metric_name, metric_name, percent_band
from cdal.benchmark.report.plots import (
    Context,
    Panel,
    as_png,
    as_svg,
    class_groups,
    curve_panels,
    one_region,
    runs_side_by_side,
)
from cdal.benchmark.report.record import Record, Run, read_record
from cdal.benchmark.report.showcase import map_of_all_picks
from cdal.benchmark.report.statistics import Band, band
from cdal.benchmark.report.summary import summarise
from cdal.benchmark.report.tables import Table
from cdal.benchmark.scores import KeptScores, read_scores
from cdal.models import Segmentation, TaskNetwork, load_network

OpenPool = Callable[[Mapping[str, Any]], Part]
"""Opens the pool of a run, given its settings."""
CONTEXTS = 4
"""Images in figure 1."""
ROWS = 3
"""Picks per run in figure 8."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a figure is drawn from.

    Attributes:
        folders: of the runs.
        records: their results.
        open_pool: opens a run's pool.
        label: the requested class, if any.
    """

    folders: Sequence[Path]
    records: Sequence[Record]
    open_pool: OpenPool
    label: str | None


def write_figure(
    name: str, folders: Sequence[Path], out: Path | None, open_pool: OpenPool, label: str | None
) -> Path:
    """Draw a figure, or write a table, from the results of runs.

    Args:
        name: a key of ``DRAWN``.
        folders: of the runs, at least one.
        out: the file; None for one in the first folder, named after the figure.
        open_pool: opens a run's pool.
        label: the class that figure 1 is about; None for the one that is confused most.

    Returns:
        The file's path.

    Raises:
        BenchmarkError: the results are missing, or are not those that the figure needs; or the
            file's ending is not that of what is drawn.
        DatasetError: images are missing.
        OSError: the file cannot be written.
    """
    records = [read_record(folder / "results.json") for folder in folders]
    drawn = DRAWN[name](Source(folders, records, open_pool, label))
    ending = "svg" if isinstance(drawn, Figure) else "md"
    if isinstance(drawn, Figure) and name in ("1", "8"):
        ending = "png"  # photographs
    path = out or folders[0] / f"figure-{name}.{ending}"
    possible = (".md",) if isinstance(drawn, Table) else (".svg", ".png")
    if path.suffix.lower() not in possible:
        raise BenchmarkError(f"{path} must end in {' or '.join(possible)}.")
    if isinstance(drawn, Table):
        path.write_text(drawn.markdown(), encoding="utf-8")
    else:
        path.write_bytes(as_png(drawn) if path.suffix.lower() == ".png" else as_svg(drawn))
    return path


def _curves(source: Source) -> Figure:
    return curve_panels(
        [
            Panel(_title(folder, record), summarise(record), record.metric, record.pool)
            for folder, record in zip(source.folders, source.records, strict=True)
        ]
    )


def _final_table(source: Source) -> Table:
    rows = []
    for folder, record in zip(source.folders, source.records, strict=True):
        last = record.budgets[-1] if record.budgets else 0
        for selector in record.selectors:
            values = [run.curve[last] for run in record.complete(selector).values()]
            if values:
                network = str(record.settings.get("network", ""))
                share = f"{last:,} ({100 * last / max(1, record.pool):.0f}%)"
                value = percent_band(band(values))
                rows.append((_title(folder, record), network, selector, share, value))
    metrics = " or ".join(dict.fromkeys(metric_name(r.metric) for r in source.records))
    return Table(
        title=f"{metrics} at the last budget, in per cent",
        note="Mean over the seeds ± half of the 95% confidence interval.",
        header=("run", "network", "selector", "labels", metrics),
        rows=tuple(rows),
    )


def _map(source: Source) -> Figure:
    drawn = map_of_all_picks(source.folders[0], source.records[0])
    if drawn is None:
        raise BenchmarkError(
            f"{source.folders[0]} has no scores of two selectors' first picks; run with "
            "--keep-scores."
        )
    return drawn


def _classes(source: Source) -> Figure:
    record = source.records[0]
    curves = [name for name in record.selectors if "reward=vr" in name or "classes=" in name]
    curves.sort(key=lambda curve: len(_class_names(curve)))
    names = list(dict.fromkeys(chain.from_iterable(_class_names(curve) for curve in curves)))
    if not names:
        raise BenchmarkError(
            f"{source.folders[0]} has no curves with classes=; run cdal benchmark ablation classes."
        )
    scores: dict[str, list[Band | None]] = {
        name: [_last_score(record, curve, name) for curve in curves] for name in names
    }
    scores["mean of all classes"] = [
        _band([run.curve[run.last] for run in record.complete(curve).values()]) for curve in curves
    ]
    return class_groups(curves, scores, class_metric_name(record.metric))


def _contexts(source: Source) -> Figure:
    folder, record = source.folders[0], source.records[0]
    runs = _first_runs(folder, record, ("cdal-cs", "entropy"))
    scores, pool = _scores(folder, runs[0]), source.open_pool(record.settings)
    classes = record.dataset["classes"]
    picks = {run.selector: run.steps[1].picked for run in runs}
    both = [name for pair in zip_longest(*picks.values()) for name in pair if name is not None]
    candidates = list(dict.fromkeys(both))
    label = _confused(source.label, scores, candidates, classes)
    shown = [name for name in candidates if scores.present[scores.rows[name], label]][:CONTEXTS]
    contexts = []
    for name in shown:
        by = [selector for selector, picked in picks.items() if name in picked]
        contexts.append(_context(f"picked by {' and '.join(by)}", name, scores, pool, None))
    return one_region(contexts, classes, label)


def _side_by_side(source: Source) -> Figure:
    folder, record = source.folders[0], source.records[0]
    runs = [run for run in _first_seed(record) if "classes=" in run.selector]
    if not runs:
        raise BenchmarkError(
            f"{folder} has no curves with classes=; run cdal benchmark ablation classes."
        )
    classes = list(record.dataset["classes"])
    names = dict.fromkeys(chain.from_iterable(_class_names(run.selector) for run in runs))
    pool = source.open_pool(record.settings)
    network = _shared_network(folder, runs[0].seed)
    columns = [
        (
            run.selector,
            [
                _context("", name, _whole_scores(folder, record), pool, network)
                for name in run.steps[1].picked[:ROWS]
            ],
        )
        for run in runs
    ]
    return runs_side_by_side(columns, classes, [classes.index(name) for name in names])


def _context(
    title: str, name: str, scores: KeptScores, pool: Part, network: TaskNetwork | None
) -> Context:
    image, mask = pool[pool.names.index(name)]
    predicted = None
    if network is not None:
        (found,) = network.predict(network.prepare(image)[None]).findings()
        predicted = found.labels.numpy() if isinstance(found, Segmentation) else None
    row = scores.rows[name]
    return Context(
        title,
        image.permute(1, 2, 0).numpy(),
        mask.numpy(),
        scores.mixtures[row],
        scores.present[row],
        predicted,
    )


def _confused(
    wanted: str | None, scores: KeptScores, images: Sequence[str], classes: Sequence[str]
) -> int:
    """The requested class, or that whose mixtures are the most uncertain in these images."""
    if wanted is not None:
        if wanted not in classes:
            raise BenchmarkError(f"--class must be one of {', '.join(classes)}, not {wanted!r}.")
        return list(classes).index(wanted)
    rows = [scores.rows[name] for name in images]
    mixtures, present = scores.mixtures[rows], scores.present[rows]
    entropy = -(mixtures * np.log2(np.clip(mixtures, 1e-12, 1))).sum(2)
    enough = present.sum(0) >= min(CONTEXTS, len(rows))
    mean = np.where(enough, (entropy * present).sum(0) / np.maximum(present.sum(0), 1), -1)
    return int(mean.argmax())


def _first_seed(record: Record) -> list[Run]:
    runs = [run for run in record.runs if len(run.steps) > 1]
    lowest = min((run.seed for run in runs), default=0)
    return [run for run in runs if run.seed == lowest]


def _first_runs(folder: Path, record: Record, selectors: Sequence[str]) -> list[Run]:
    found = {run.selector: run for run in _first_seed(record)}
    missing = next((name for name in selectors if name not in found), None)
    if missing is not None:
        raise BenchmarkError(f"{folder} has no picks of {missing}, which this figure shows.")
    return [found[name] for name in selectors]


def _scores(folder: Path, run: Run) -> KeptScores:
    scores = read_scores(folder, run.selector, run.seed, run.steps[0].labelled)
    if scores is None or scores.mixtures.shape[1] == 1:
        raise BenchmarkError(
            f"{folder} has no mixtures per class of {run.selector}; run with --keep-scores and "
            "region=class."
        )
    return scores


def _whole_scores(folder: Path, record: Record) -> KeptScores:
    """Scores of the first model with mixtures of all classes."""
    for run in _first_seed(record):
        if run.selector != "random" and "classes=" not in run.selector:
            return _scores(folder, run)
    return _scores(folder, _first_seed(record)[0])


def _shared_network(folder: Path, seed: int) -> TaskNetwork | None:
    place = SimulationFolder(folder).shared_model(f"seed{seed}")
    return load_network(place, torch.device("cpu")) if place.exists() else None


def _last_score(record: Record, curve: str, name: str) -> Band | None:
    steps = [run.steps[-1] for run in record.complete(curve).values()]
    return _band([value for step in steps if (value := step.per_class.get(name)) is not None])


def _band(values: Sequence[float]) -> Band | None:
    return band(values) if values else None


def _class_names(curve: str) -> list[str]:
    """The classes of a curve's option ``classes=``."""
    options = curve.partition(":")[2].split(",")
    found = next((o.partition("=")[2] for o in options if o.startswith("classes=")), "")
    return [name for name in found.split("+") if name]


def _title(folder: Path, record: Record) -> str:
    protocol = record.settings.get("protocol")
    return f"{folder.name} ({protocol})" if protocol else folder.name


DRAWN: Mapping[str, Callable[[Source], Figure | Table]] = {
    "1": _contexts,
    **dict.fromkeys(("3", "4", "5", "6", "9", "10"), _curves),
    "7a": _map,
    "7b": _classes,
    "8": _side_by_side,
    **dict.fromkeys(("table1", "table2"), _final_table),
}
"""How each of ``FIGURES`` is drawn."""
