"""How figures are formatted."""

from __future__ import annotations

from cdal.benchmark.report.statistics import Band

ABSENT = "–"
"""Stands for a missing figure."""


def percent(value: float | None) -> str:
    """A share in per cent, without the sign."""
    return ABSENT if value is None else f"{100 * value:.1f}"


def percent_band(value: Band | None) -> str:
    """A share in per cent with the margin of its confidence interval, if it has one."""
    if value is None:
        return ABSENT
    margin = "" if value.margin is None else f" ± {100 * value.margin:.1f}"
    return percent(value.mean) + margin


def points(value: Band) -> str:
    """A difference between shares in percentage points, signed, with its margin."""
    margin = "" if value.margin is None else f" ± {100 * value.margin:.1f}"
    return f"{100 * value.mean:+.1f}{margin}".replace("-", "−")


def probability(p: float | None) -> str:
    """A p-value."""
    if p is None:
        return ABSENT
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def duration(seconds: float) -> str:
    """Seconds with the digits that matter."""
    if seconds >= 10_000:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 99.95:
        return f"{seconds:,.0f} s"
    # What would round to 1000 ms is a second.
    return f"{seconds:.1f} s" if seconds >= 0.9995 else f"{1000 * seconds:.3g} ms"


def metric_name(name: str) -> str:
    """A metric's usual name."""
    known = {
        "miou": "mIoU",
        "macro_f1": "macro F1",
        "map_50": "mAP at IoU 0.5",
        "map_voc2007": "VOC 2007 mAP",
    }
    return known.get(name, name.replace("_", " "))


def class_metric_name(name: str) -> str:
    """The usual name of the score of one class, by the name of the main metric."""
    known = {
        "miou": "IoU",
        "macro_f1": "F1",
        "map_50": "AP at IoU 0.5",
        "map_voc2007": "VOC 2007 AP",
    }
    return known.get(name, "share recognised")


def seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
