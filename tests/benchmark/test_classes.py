from __future__ import annotations

from typing import Any

import pytest
from support.recorded import results, run, step, two_selectors

from cdal.benchmark.report.classes import (
    PickedClasses,
    evenness,
    picked_classes,
    rare_classes,
)
from cdal.benchmark.report.record import parse_record
from cdal.benchmark.report.tables import picked_classes_table, rare_classes_table
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


def test_rare_classes_have_curves_and_a_share_of_the_picks() -> None:
    def of(selector: str, seed: int, names: tuple[str, ...], scores: tuple[float, ...]) -> Any:
        steps = [
            step(labelled, 0.5, [name], {"cat": 0.9, "dog": score})
            for labelled, name, score in zip((1, 2), names, scores, strict=True)
        ]
        return {"selector": selector, "seed": seed, "steps": steps}

    data = results(
        [
            of("random", 0, ("cat0", "cat1"), (0.0, 0.1)),
            of("random", 1, ("cat1", "dog0"), (0.2, 0.3)),
            of("cdal-cs", 0, ("cat0", "dog0"), (0.0, 0.5)),
        ]
    )
    counts: dict[str, dict[int, int]] = {f"cat{number}": {0: 1} for number in range(9)}
    counts["dog0"] = {1: 1}
    told = rare_classes(parse_record(data), counts)
    assert told is not None
    assert (told.classes, told.budgets) == (("dog",), (1, 2))
    assert told.in_pool == pytest.approx(0.1)
    assert told.curves["dog", "random"] == pytest.approx({1: 0.1, 2: 0.2})
    assert told.shares["random"].mean == pytest.approx(0.25)
    assert told.shares["cdal-cs"].mean == pytest.approx(0.5)
    table = rare_classes_table(told, "accuracy")
    assert table.header == ("labels", "random", "cdal-cs")
    assert [row[2] for row in table.rows] == ["0.0", "50.0", "50.0"]


def test_no_class_is_rare_if_all_are_equally_frequent() -> None:
    data = two_selectors()
    assert rare_classes(parse_record(data), {name: {0: 1, 1: 1} for name in every(data)}) is None
