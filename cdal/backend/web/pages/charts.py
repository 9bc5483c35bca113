"""Charts as geometry, which templates draw as SVG: no script, and every figure as text, too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 980.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 20.0, 16.0, 46.0


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis and what is written there."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A measured point."""

    x: float
    y: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A learning curve, in the coordinates of its picture.

    Attributes:
        line: the points of the polyline through the versions that served.
        random: the same through the models of random labels alone; empty where there are none.
    """

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    line: str
    random: str


def learning_curve(
    versions: Sequence[Mapping[str, Any]], random: Sequence[Mapping[str, Any]] = ()
) -> Curve | None:
    """The held-out metric against the labels; None where nothing has been measured.

    Args:
        versions: as the API gives them.
        random: points of the random curve, each with "labels" and "value".
    """
    measured = [version for version in versions if version["value"] is not None]
    if not measured:
        return None
    points = [*measured, *random]
    x_marks = nice_marks(0.0, max(point["labels"] for point in points), 6)
    values = [point["value"] for point in points]
    y_marks = nice_marks(max(0.0, min(values) - 0.05), min(1.0, max(values) + 0.05), 5)
    x_of = _scale(x_marks[0], x_marks[-1], LEFT, WIDTH - RIGHT)
    y_of = _scale(y_marks[0], y_marks[-1], HEIGHT - BOTTOM, TOP)

    def place(point: Mapping[str, Any]) -> str:
        return f"{x_of(point['labels']):.1f},{y_of(point['value']):.1f}"

    dots = [
        Dot(
            x_of(version["labels"]),
            y_of(version["value"]),
            "served" if version["promoted"] else "kept",
            f"Version {version['number']}: {version['value']:.3f} with {version['labels']} labels",
        )
        for version in measured
    ]
    dots += [
        Dot(
            x_of(point["labels"]),
            y_of(point["value"]),
            "random",
            f"Random labels alone: {point['value']:.3f} with {point['labels']} labels",
        )
        for point in random
    ]
    return Curve(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=HEIGHT - BOTTOM,
        x_ticks=tuple(Tick(x_of(mark), f"{mark:,.0f}") for mark in x_marks),
        y_ticks=tuple(Tick(y_of(mark), f"{mark:.{_digits(y_marks)}f}") for mark in y_marks),
        dots=tuple(dots),
        line=" ".join(place(version) for version in measured if version["promoted"]),
        random=" ".join(place(point) for point in random),
    )


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a row of bars."""

    x: float
    y: float
    width: float
    height: float
    text: str


def columns(values: Sequence[float], texts: Sequence[str]) -> list[Bar]:
    """Upright bars over the width of a picture of 720 by 120."""
    most = max([*values, 1])
    step = 720.0 / max(len(values), 1)
    wide = min(step * 0.8, 48.0)
    return [
        Bar(
            place * step + (step - wide) / 2,
            120 - 114 * value / most,
            wide,
            114 * value / most,
            text,
        )
        for place, (value, text) in enumerate(zip(values, texts, strict=True))
    ]


def parts(values: Sequence[float], width: float) -> list[tuple[float, float]]:
    """Where each part of a bar begins, and how wide it is."""
    total = sum(values) or 1.0
    found, start = [], 0.0
    for value in values:
        found.append((start, width * value / total))
        start += width * value / total
    return found


def nice_marks(lowest: float, highest: float, most: int) -> list[float]:
    """Round numbers, evenly spaced, from below the lowest to above the highest."""
    span = max(highest - lowest, 1e-9)
    rough = span / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
    first = math.floor(lowest / step + 1e-9)
    last = max(math.ceil(highest / step - 1e-9), first + 1)
    return [step * place for place in range(first, last + 1)]


def _digits(marks: Sequence[float]) -> int:
    """The fewest decimals, up to four, that tell all marks as they are."""
    exact = (n for n in (1, 2, 3) if all(abs(round(mark, n) - mark) < 1e-9 for mark in marks))
    return next(exact, 4)


def _scale(low: float, high: float, start: float, end: float) -> Any:
    return lambda value: start + (value - low) / (high - low) * (end - start)
