from __future__ import annotations

import math

import pytest
from support.recorded import results, run, two_selectors

from cdal.benchmark.report.record import parse_record
from cdal.benchmark.report.summary import summarise


def test_two_selectors() -> None:
    random, cdal = summarise(parse_record(two_selectors()))
    assert (random.selector, random.runs, random.complete) == ("random", 2, 2)
    assert random.comparison is None
    assert {labelled: band.mean for labelled, band in cdal.curve.items()} == pytest.approx(
        {10: 0.51, 20: 0.73, 30: 0.81}
    )
    assert random.area is not None
    assert random.area.mean == pytest.approx((0.60 + 0.63) / 2)
    found = cdal.comparison
    assert found is not None
    assert found.seeds == 2
    assert found.target == pytest.approx(0.73)
    assert found.labels == pytest.approx(20)
    # The finals differ by 0.10 and 0.06: mean 0.08, standard error 0.02, t = 4 with one degree
    # of freedom, whose two-sided p is 1 − 2 arctan(t)/π.
    assert found.final.difference.mean == pytest.approx(0.08)
    assert found.final.p == pytest.approx(1 - 2 * math.atan(4) / math.pi)
    # The areas differ by 0.075 and 0.085: t = 0.08 / 0.005 = 16.
    assert found.area is not None
    assert found.area.p == pytest.approx(1 - 2 * math.atan(16) / math.pi)


def test_an_unfinished_run_is_drawn_but_not_compared() -> None:
    data = two_selectors()
    data["runs"][3]["steps"].pop()
    cdal = summarise(parse_record(data))[1]
    assert (cdal.runs, cdal.complete) == (2, 1)
    assert [band.count for band in cdal.curve.values()] == [2, 2, 1]
    assert cdal.comparison is not None
    # With seed 0 alone, random ends at 0.70.
    assert cdal.comparison.seeds == 1
    assert cdal.comparison.target == pytest.approx(0.70)
    assert cdal.comparison.final.p is None


def test_seeds_are_paired_by_number() -> None:
    data = results(
        [
            run("random", 0, {10: 0.1, 20: 0.2}),
            run("random", 1, {10: 0.3, 20: 0.4}),
            run("other", 1, {10: 0.3, 20: 0.5}),
        ]
    )
    found = summarise(parse_record(data))[1].comparison
    assert found is not None
    assert found.seeds == 1
    assert found.target == pytest.approx(0.4)
    assert found.final.difference.mean == pytest.approx(0.1)


def test_one_step_has_no_area() -> None:
    data = results([run("random", 0, {10: 0.1}), run("other", 0, {10: 0.2})])
    found = summarise(parse_record(data))[1]
    assert found.area is None
    assert found.comparison is not None
    assert found.comparison.area is None
    assert found.comparison.labels == 10


def test_without_random_nothing_is_compared() -> None:
    found = summarise(parse_record(results([run("entropy", 0, {10: 0.1, 20: 0.2})])))
    assert [summary.comparison for summary in found] == [None]


def test_curves_that_begin_elsewhere_have_no_comparable_area() -> None:
    data = results([run("random", 0, {10: 0.1, 30: 0.2}), run("other", 0, {20: 0.2, 30: 0.3})])
    found = summarise(parse_record(data))[1].comparison
    assert found is not None
    assert found.area is None
