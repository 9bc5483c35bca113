"""Where the time of a benchmark went, by selector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cdal.benchmark.report.record import Record

PARTS = ("train", "score", "select", "evaluate", "other")


@dataclass(frozen=True, slots=True)
class Seconds:
    """The time of one selector, over all steps of all its runs.

    Attributes:
        selector: its label.
        parts: seconds per step by part, wall clock.
        overhead: the share of "other" in the total; None if nothing took any time.
        trained_per_second: images, counted once per epoch; None without training.
        scored_per_second: images; None without scoring.
    """

    selector: str
    parts: Mapping[str, float]
    overhead: float | None
    trained_per_second: float | None
    scored_per_second: float | None


def seconds(record: Record) -> tuple[Seconds, ...]:
    """Add up the steps of each selector that has any."""
    made = (_seconds(record, selector) for selector in record.selectors)
    return tuple(found for found in made if found is not None)


def _seconds(record: Record, selector: str) -> Seconds | None:
    steps = [step for run in record.of(selector).values() for step in run.steps]
    if not steps:
        return None
    totals = {part: sum(step.seconds.get(part, 0.0) for step in steps) for part in PARTS}
    whole = sum(totals.values())
    trained = sum(step.images.get("trained", 0) for step in steps)
    scored = sum(step.images.get("scored", 0) for step in steps)
    return Seconds(
        selector=selector,
        parts={part: total / len(steps) for part, total in totals.items()},
        overhead=totals["other"] / whole if whole else None,
        trained_per_second=_rate(trained, totals["train"]),
        scored_per_second=_rate(scored, totals["score"]),
    )


def _rate(images: int, seconds: float) -> float | None:
    return images / seconds if images and seconds else None
