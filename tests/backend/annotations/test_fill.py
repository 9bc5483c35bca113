"""Filling polygons by the centres of pixels."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cdal.backend.annotations.polygons import fill


def filled(points: list[tuple[float, float]], height: int = 6, width: int = 8) -> list[str]:
    target = np.zeros((height, width), np.uint8)
    fill(target, np.array(points, np.float64), 1)
    return ["".join(".#"[value] for value in row) for row in target]


def test_a_rectangle_along_the_edges_of_pixels() -> None:
    assert filled([(1, 2), (4, 2), (4, 5), (1, 5)]) == [
        "........",
        "........",
        ".###....",
        ".###....",
        ".###....",
        "........",
    ]


def test_a_pixel_counts_from_its_centre_on() -> None:
    assert filled([(0.51, 0), (2.51, 0), (2.51, 6), (0.51, 6)])[0] == ".##....."
    assert filled([(0.49, 0), (2.49, 0), (2.49, 6), (0.49, 6)])[0] == "##......"


def test_a_triangle() -> None:
    """At the height y + 1/2, it goes from 0 to 6 - (y + 1/2)."""
    assert filled([(0, 0), (6, 0), (0, 6)]) == [
        "#####...",
        "####....",
        "###.....",
        "##......",
        "#.......",
        "........",
    ]


def test_what_lies_outside_is_cut_off() -> None:
    assert filled([(-5, -5), (2, -5), (2, 50), (-5, 50)]) == ["##......"] * 6
    assert filled([(-5, -5), (50, -5), (50, 50), (-5, 50)]) == ["########"] * 6
    assert filled([(20, 0), (30, 0), (30, 6)]) == ["........"] * 6


def test_a_line_has_no_inside() -> None:
    assert filled([(0, 0), (8, 6), (0, 0)]) == ["........"] * 6
    assert filled([(1, 1)] * 3) == ["........"] * 6


def test_where_a_polygon_overlaps_itself_is_inside() -> None:
    twice = [(1, 1), (5, 1), (5, 5), (1, 5)] * 2
    assert filled(twice)[2] == ".####..."


numbers = st.floats(-4, 14, allow_nan=False).map(lambda value: round(value, 2))


@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=12))
@settings(max_examples=50)
def test_inside_is_where_the_line_winds_around(points: list[tuple[float, float]]) -> None:
    """The angles under which a centre sees the edges add up to whole turns around it."""
    target = np.zeros((9, 11), np.uint8)
    fill(target, np.array(points), 1)
    corners = [complex(x, y) for x, y in points]
    for (row, column), value in np.ndenumerate(target):
        centre = complex(column + 0.5, row + 0.5)
        seen = [corner - centre for corner in corners]
        edges = list(zip(seen, [*seen[1:], seen[0]], strict=True))
        if any(abs(a * b) < 1e-6 or np.imag(a.conjugate() * b) == 0 for a, b in edges):
            continue  # on the line itself, or in line with an edge
        if any(abs(np.imag(a.conjugate() * b)) < 1e-9 * abs(a * b) for a, b in edges):
            continue
        turns = sum(np.angle(b / a) for a, b in edges) / (2 * np.pi)
        assert value == (abs(turns) > 0.5)
