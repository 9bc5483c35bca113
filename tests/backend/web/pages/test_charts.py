"""Charts as geometry."""

from __future__ import annotations

import pytest

from cdal.backend.web.pages.charts import Kind, Point, _digits, columns, learning_curve, nice_marks


def version(number: int, labels: int, value: float, kind: Kind = "served") -> Point:
    return Point(f"Version {number}", labels, value, kind)


def test_without_measurements_there_is_no_curve() -> None:
    assert learning_curve([]) is None


def test_better_is_higher_and_more_labels_are_further_right() -> None:
    curve = learning_curve(
        [version(1, 50, 0.4), version(2, 100, 0.3, "kept"), version(3, 150, 0.6)]
    )
    assert curve is not None
    first, second, third = curve.dots
    assert first.x < second.x < third.x
    assert third.y < first.y < second.y
    assert [dot.kind for dot in curve.dots] == ["served", "kept", "served"]
    assert first.text == "Version 1: 0.400 with 50 labels"
    # The line is that of the versions that served.
    assert curve.line == f"{first.x:.1f},{first.y:.1f} {third.x:.1f},{third.y:.1f}"
    for dot in curve.dots:
        assert curve.left <= dot.x <= curve.right
        assert curve.top <= dot.y <= curve.bottom


def test_random_labels_have_a_mark_of_their_own() -> None:
    curve = learning_curve([version(1, 50, 0.4), Point("Random labels alone", 80, 0.35, "random")])
    assert curve is not None
    assert [dot.kind for dot in curve.dots] == ["served", "random"]


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0, 125, [0, 25, 50, 75, 100, 125]),
        (0.25, 0.57, [0.2, 0.3, 0.4, 0.5, 0.6]),
        (0, 0, [0, 2.5e-10]),
    ],
)
def test_marks_are_round(low: float, high: float, marks: list[float]) -> None:
    assert nice_marks(low, high, 6 if high > 1 else 5) == pytest.approx(marks)


def test_columns_stand_on_the_ground_and_fill_the_height() -> None:
    bars = columns([1, 4, 0], ["a", "b", "c"])
    assert [round(bar.height) for bar in bars] == [28, 114, 0]
    assert all(bar.y + bar.height == pytest.approx(120) for bar in bars)
    assert columns([], []) == []


@pytest.mark.parametrize(
    ("marks", "digits"), [((0.0, 0.1, 0.2), 1), ((0.35, 0.375, 0.4), 3), ((0.0, 1.0), 1)]
)
def test_marks_have_as_many_decimals_as_distinguish_them(
    marks: tuple[float, ...], digits: int
) -> None:
    assert _digits(marks) == digits
