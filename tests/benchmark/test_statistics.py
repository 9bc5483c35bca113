from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdal.benchmark.report.statistics import (
    area,
    band,
    interval_of_labels,
    jaccard,
    labels_to_reach,
    mean_curve,
    paired_test,
)

heights = st.lists(st.floats(0, 1), min_size=2, max_size=8)


def test_a_band_of_three_values() -> None:
    # Deviations -1, 0, 1: variance 1, standard error 1/√3; t of 97.5% with 2 degrees is 4.3027.
    found = band([0.0, 1.0, 2.0])
    assert (found.mean, found.count) == (1.0, 3)
    assert found.error == pytest.approx(1 / math.sqrt(3))
    assert found.margin == pytest.approx(4.302653 / math.sqrt(3))
    assert found.low == pytest.approx(1 - 2.484138, abs=1e-5)
    assert found.high == pytest.approx(1 + 2.484138, abs=1e-5)


def test_one_value_has_no_band() -> None:
    found = band([0.5])
    assert (found.mean, found.count, found.error, found.margin) == (0.5, 1, None, None)
    assert (found.low, found.high) == (0.5, 0.5)


def test_area_of_uneven_steps() -> None:
    # Trapezoids 10 · 0.3 and 30 · 0.5 over 40 labels.
    assert area({50: 0.6, 10: 0.2, 20: 0.4}) == pytest.approx((10 * 0.3 + 30 * 0.5) / 40)


@pytest.mark.parametrize("curve", [{}, {10: 0.5}])
def test_no_area_below_a_point(curve: dict[int, float]) -> None:
    assert area(curve) is None


@given(heights)
def test_an_area_is_a_mean_height(values: list[float]) -> None:
    found = area({10 * place: value for place, value in enumerate(values)})
    assert found is not None
    assert min(values) - 1e-9 <= found <= max(values) + 1e-9


@pytest.mark.parametrize(
    ("target", "labels"),
    [(0.45, 15.0), (0.5, 20.0), (0.4, 10.0), (0.1, 10.0), (0.55, 45.0), (0.6, 50.0), (0.61, None)],
)
def test_labels_to_reach(target: float, labels: float | None) -> None:
    # Up, down, and up again: the first crossing counts.
    curve = {10: 0.4, 20: 0.5, 40: 0.5, 50: 0.6}
    assert labels_to_reach(curve, target) == (labels if labels is None else pytest.approx(labels))


def test_the_first_crossing_counts_where_a_curve_falls() -> None:
    assert labels_to_reach({10: 0.0, 20: 0.8, 30: 0.2, 40: 0.9}, 0.4) == pytest.approx(15)


def test_the_interval_of_labels_is_over_the_seeds() -> None:
    random = [{10: 0.0, 20: 0.5}, {10: 0.0, 20: 0.5}]
    # Alone, the first seed reaches 0.5 at 15 labels and the second at 20; both together, whose mean
    # rises to 0.75, at 10 + 10 · 0.5 / 0.75.
    mixed = [{10: 0.0, 20: 1.0}, {10: 0.0, 20: 0.5}]
    assert interval_of_labels(mixed, random) == pytest.approx((15, 20))
    # In a quarter of the samples it is only the second seed.
    never = [{10: 0.0, 20: 1.0}, {10: 0.0, 20: 0.2}]
    assert interval_of_labels(never, random) == (pytest.approx(15), math.inf)
    assert interval_of_labels(mixed[:1], random[:1]) is None


def test_a_mean_curve_has_the_labels_that_all_have() -> None:
    assert mean_curve([{10: 0.2, 20: 0.4, 30: 1.0}, {10: 0.4, 20: 0.8}]) == pytest.approx(
        {10: 0.3, 20: 0.6}
    )
    assert mean_curve([]) == {}


def test_a_paired_test() -> None:
    # Differences 1, 2, 3: mean 2, standard error 1/√3, t = 2√3 with 2 degrees of freedom, whose
    # two-sided p is 1 − t/√(t² + 2) = 1 − √(12/14).
    found = paired_test([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found.difference.mean == 2
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14))


def test_a_paired_test_has_a_direction() -> None:
    there, back = paired_test([0.5, 0.7], [0.4, 0.5]), paired_test([0.4, 0.5], [0.5, 0.7])
    assert there.difference.mean == -back.difference.mean == pytest.approx(0.15)
    assert there.p == back.p


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([0.5], [0.4]),
        ([0.5, 0.6], [0.5, 0.6]),
        ([0.1 + 0.2, 0.4], [0.2, 0.3]),  # the same but for rounding
    ],
)
def test_what_cannot_be_tested_has_no_p(first: list[float], second: list[float]) -> None:
    assert paired_test(first, second).p is None


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0])])
def test_what_is_no_pair_is_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="paired test"):
        paired_test(first, second)


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [("abc", "bcd", 0.5), ("ab", "ab", 1.0), ("ab", "cd", 0.0), ("ab", "", 0.0), ("", "", None)],
)
def test_jaccard(first: str, second: str, share: float | None) -> None:
    assert jaccard(set(first), set(second)) == share
