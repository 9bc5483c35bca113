from __future__ import annotations

from typing import Any

import pytest
from support.recorded import results, run, two_selectors

from cdal.benchmark.report.classes import PickedClasses, evenness, picked_classes
from cdal.benchmark.report.record import parse_record
from cdal.benchmark.report.tables import picked_classes_table
from cdal.models import BACKGROUND


def every(data: dict[str, Any]) -> list[str]:
    return [name for r in data["runs"] for s in r["steps"] for name in s["picked"]]


def found(data: dict[str, Any], odd: int) -> PickedClasses:
    """Every n-th image shows dogs, the others one cat each."""
    counts = {
        name: {1: 2} if number % odd == 0 else {0: 1}
        for number, name in enumerate(dict.fromkeys(every(data)))
    }
    told = picked_classes(parse_record(data), counts)
    assert told is not None
    return told


@pytest.mark.parametrize(
    ("shares", "even"), [((0.5, 0.5), 1), ((1.0, 0.0), 0), ((0.25,) * 4, 1), ((1.0,), 1)]
)
def test_evenness(shares: tuple[float, ...], even: float) -> None:
    assert evenness(shares) == pytest.approx(even)


def test_shares_of_the_classes_of_all_that_is_labelled() -> None:
    told = found(two_selectors(), odd=2)
    assert told.labelled == 30
    # A dog is there twice: of 15 images with one cat and 15 with two dogs.
    assert told.shares["random"] == pytest.approx((1 / 3, 2 / 3))
    assert told.pool == pytest.approx((1 / 3, 2 / 3))
    assert told.evenness["cdal-cs"].mean == pytest.approx(0.918296, abs=1e-6)


def test_a_table_of_them() -> None:
    table = picked_classes_table(found(two_selectors(), odd=2))
    assert table.header == ("selector", "evenness", "cat", "dog")
    assert table.rows[0] == ("the whole pool", "91.8", "33.3", "66.7")
    assert table.rows[1][0] == "random"


def test_background_is_no_class() -> None:
    data = results([run("random", 0, {2: 0.5})])
    data["dataset"]["classes"] = ["cat", "dog", BACKGROUND]
    told = found(data, odd=2)
    assert told.classes == ("cat", "dog")


def test_without_counts_nothing_is_said() -> None:
    assert picked_classes(parse_record(two_selectors()), {}) is None
