"""The runs of an ablation, which differ in one option, side by side: a picture and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cdal.benchmark.report.formatting import metric_name, percent_band
from cdal.benchmark.report.plots import as_svg, by_value
from cdal.benchmark.report.record import read_record
from cdal.benchmark.report.statistics import Band, band
from cdal.benchmark.report.tables import Table


def write_ablation(folder: Path, option: str, runs: Mapping[str, Path]) -> Path:
    """Write ``ablation.svg`` and ``ablation.md``: each selector's metric at the last budget.

    Args:
        folder: where to write.
        option: the option that differs between the runs.
        runs: the folder of each run, with its ``results.json``, by the option's value.

    Returns:
        The table's path.

    Raises:
        BenchmarkError: there are no results, or they cannot be read.
        OSError: the files cannot be written.
    """
    records = [read_record(run / "results.json") for run in runs.values()]
    selectors = list(dict.fromkeys(name for record in records for name in record.selectors))
    bands: dict[str, list[Band | None]] = {
        name: [_last([run.curve for run in record.complete(name).values()]) for record in records]
        for name in selectors
    }
    metric = records[0].metric
    values = list(runs)
    (folder / "ablation.svg").write_bytes(as_svg(by_value(option, values, bands, metric)))
    path = folder / "ablation.md"
    path.write_text(_table(option, values, bands, metric).markdown(), encoding="utf-8")
    return path


def _last(curves: Sequence[Mapping[int, float]]) -> Band | None:
    """The metric at the last budget."""
    return band([curve[max(curve)] for curve in curves]) if curves else None


def _table(
    option: str, values: Sequence[str], bands: Mapping[str, Sequence[Band | None]], metric: str
) -> Table:
    return Table(
        title=f"By {option}: {metric_name(metric)} at the last budget, in per cent",
        note="Mean over the seeds ± half of the 95% confidence interval.",
        header=(option, *bands),
        rows=tuple(
            (value, *(percent_band(row[place]) for row in bands.values()))
            for place, value in enumerate(values)
        ),
    )
