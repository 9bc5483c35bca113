from __future__ import annotations

import pytest
from support.recorded import results, step

from cdal.benchmark.report.overlap import overlap
from cdal.benchmark.report.record import parse_record


def picks(selector: str, seed: int, *rounds: str) -> dict[str, object]:
    """A run that starts with the images x and y and picks two per round, named by letters."""
    steps = [step(2 + 2 * place, 0.5, list(names)) for place, names in enumerate(("xy", *rounds))]
    return {"selector": selector, "seed": seed, "steps": steps}


def test_overlap_of_all_picks_so_far() -> None:
    data = results(
        [picks("a", 0, "12", "34"), picks("b", 0, "23", "45"), picks("c", 0, "12", "34")]
    )
    found = overlap(parse_record(data))
    assert found.selectors == ("a", "b", "c")
    assert found.budgets == (4, 6)
    # {1, 2} and {2, 3} share 1 of 3; {1, 2, 3, 4} and {2, 3, 4, 5} share 3 of 5.
    assert found.at("a", "b", 4) == pytest.approx(1 / 3)
    assert found.at("b", "a", 6) == pytest.approx(3 / 5)
    assert found.at("a", "c", 6) == 1.0
    assert found.at("a", "a", 4) == 1.0
    assert found.at("a", "b", 2) is None


def test_the_mean_is_over_seeds_that_both_have() -> None:
    data = results(
        [
            picks("a", 0, "12"),
            picks("b", 0, "12"),
            picks("a", 1, "12"),
            picks("b", 1, "34"),
            picks("b", 2, "12"),
        ]
    )
    assert overlap(parse_record(data)).at("a", "b", 4) == pytest.approx(0.5)


def test_nothing_is_picked_in_one_step() -> None:
    found = overlap(parse_record(results([picks("a", 0), picks("b", 0)])))
    assert (found.selectors, dict(found.pairs), found.budgets) == ((), {}, ())
