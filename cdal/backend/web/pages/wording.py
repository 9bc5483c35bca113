"""The wording of figures and times on the pages."""

from __future__ import annotations

from datetime import datetime

from cdal.backend.store.tables import now
from cdal.backend.text import duration

METRIC_NAMES = {
    "accuracy": "accuracy",
    "miou": "mIoU",
    "macro_f1": "macro F1",
    "map_50": "mAP@0.5",
    "map": "mAP",
}


def seconds(value: float | None) -> str:
    """A measured time: "0.4 s", "12 s", "3 min 5 s", "1 h 2 min"."""
    if value is None:
        return "—"
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def ago(then: datetime) -> str:
    """How long ago something happened: "just now", "3 minutes ago"."""
    passed = (now() - then).total_seconds()
    return "just now" if passed < 5 else f"{duration(passed)} ago"


def metric_name(name: str | None) -> str:
    """A metric's usual spelling."""
    return METRIC_NAMES.get(name or "", (name or "metric").replace("_", " "))


def moved(difference: float | None) -> str:
    """How a metric moved, in words."""
    if difference is None:
        return ""
    if abs(difference) < 0.0005:
        return "unchanged"
    return f"{'up' if difference > 0 else 'down'} {abs(difference):.3f}"


def count(number: int, thing: str, things: str | None = None) -> str:
    """A number and what it counts: "1 image", "1,200 images"."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"
