"""Charts as geometry, which templates draw as SVG: no script, and every figure is text as well."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH, HEIGHT = 980.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 20.0, 16.0, 46.0


Kind = Literal["served", "kept", "random"]
"""Whether a model version served or did not, or learned from random labels alone."""


@dataclass(frozen=True, slots=True)
class Point:
    """A measured model: its name, the labels it learned from, and its held-out metric."""

    name: str
    labels: int
    value: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis and its text."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A point in the coordinates of its picture."""

    x: float
    y: float
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A learning curve, in the coordinates of its picture.

    Attributes:
        line: the points of the polyline through the versions that served.
        random: the same through the models of random labels alone; empty without one.
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


def learning_curve(points: Sequence[Point]) -> Curve | None:
    """The held-out metric against the number of labels; None without a point.

    Points that served are joined by one line, those of random labels by another.
    """
    if not points:
        return None
    values = [point.value for point in points]
    x_marks = nice_marks(0.0, max(point.labels for point in points), 6)
    y_marks = nice_marks(max(0.0, min(values) - 0.05), min(1.0, max(values) + 0.05), 5)
    x_of = _scale(x_marks[0], x_marks[-1], LEFT, WIDTH - RIGHT)
    y_of = _scale(y_marks[0], y_marks[-1], HEIGHT - BOTTOM, TOP)
    dots = [
        Dot(
            x_of(point.labels),
            y_of(point.value),
            point.kind,
            f"{point.name}: {point.value:.3f} with {point.labels} labels",
        )
        for point in points
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
        line=_line(dots, "served"),
        random=_line(dots, "random"),
    )


def _line(dots: Sequence[Dot], kind: Kind) -> str:
    """The polyline through the dots of one kind, as SVG spells it."""
    return " ".join(f"{dot.x:.1f},{dot.y:.1f}" for dot in dots if dot.kind == kind)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a bar chart."""

    x: float
    y: float
    width: float
    height: float
    text: str


def columns(values: Sequence[float], texts: Sequence[str]) -> list[Bar]:
    """Upright bars that fill a picture of 720 by 120."""
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
    """The fewest decimals, at most four, that show all marks exactly."""
    exact = (n for n in (1, 2, 3) if all(abs(round(mark, n) - mark) < 1e-9 for mark in marks))
    return next(exact, 4)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)
