from __future__ import annotations

from typing import Any

import pytest
from support.recorded import results, run, two_selectors

from cdal.benchmark.report.conclusions import conclusions, unfinished
from cdal.benchmark.report.record import parse_record
from cdal.benchmark.report.summary import summarise


def said(data: dict[str, Any]) -> tuple[str, ...]:
    record = parse_record(data)
    return conclusions(summarise(record), record.metric)


def in_order(text: str, *parts: str) -> bool:
    """Whether the text has these parts, one after the other."""
    place = 0
    for part in parts:
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True


def test_a_selector_that_wins() -> None:
    # p = 1 − 2 arctan(16)/π = 0.0397.
    (sentence,) = said(two_selectors())
    assert in_order(sentence, "cdal-cs needs 20 labels", "random reaches with 30 (accuracy 73.0%)")
    assert in_order(sentence, "33% fewer", "8.0 points above random", "p = 0.04 over 2 seeds.")


def test_a_selector_that_loses() -> None:
    data = two_selectors()
    for found in data["runs"]:
        found["selector"] = {"random": "entropy", "cdal-cs": "random"}[found["selector"]]
    (sentence,) = said(data)
    assert in_order(sentence, "entropy does not reach with 30 labels", "random", "accuracy 81.0%")
    assert in_order(sentence, "8.0 points below random", "p = 0.04 over 2 seeds.")
    assert "fewer" not in sentence


def test_a_difference_that_may_be_chance() -> None:
    data = results(
        [
            run("random", 0, {10: 0.5, 20: 0.6}),
            run("random", 1, {10: 0.5, 20: 0.6}),
            run("margin", 0, {10: 0.5, 20: 0.8}),
            run("margin", 1, {10: 0.5, 20: 0.5}),
        ]
    )
    # The areas differ by 0.10 and −0.05: mean 0.025, standard error 0.075, t = 1/3.
    assert said(data)[0].endswith(
        "2.5 points above random, which may be due to chance; p = 0.80 over 2 seeds."
    )


def test_of_one_seed_nothing_is_said_of_chance() -> None:
    data = two_selectors()
    data["runs"] = [found for found in data["runs"] if found["seed"] == 0]
    (sentence,) = said(data)
    assert sentence.endswith("with 1 seed, chance cannot be ruled out.")
    assert "p =" not in sentence


def test_the_same_as_random() -> None:
    data = results([run("random", 0, {10: 0.5, 20: 0.6}), run("margin", 0, {10: 0.5, 20: 0.6})])
    assert "needs 20 labels for what random reaches with 20" in said(data)[0]
    assert in_order(said(data)[0], "the same as random", "with 1 seed")


def test_the_same_difference_with_each_seed_is_not_called_chance() -> None:
    data = results(
        [
            run(name, seed, {10: 0.25, 20: 0.5 + gain})
            for name, gain in (("random", 0.0), ("margin", 0.25))
            for seed in (0, 1)
        ]
    )
    assert said(data)[0].endswith(
        "12.5 points above random, by the same amount with each of 2 seeds."
    )


def test_one_step_is_compared_by_its_metric() -> None:
    data = results([run("random", 0, {10: 0.5}), run("margin", 0, {10: 0.6})])
    (sentence,) = said(data)
    assert in_order(sentence, "margin", "first 10 labels", "random", "with 10 (accuracy 50.0%)")
    assert in_order(sentence, "final accuracy is 10.0 points above random", "with 1 seed")


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ([], "Nothing has been measured yet."),
        ([run("margin", 0, {10: 0.5})], "No comparison: the selector random was not run."),
        ([run("random", 0, {10: 0.5})], "No comparison: only random was run."),
        (
            [run("random", 0, {10: 0.5, 20: 0.6}), run("margin", 0, {10: 0.5})],
            "margin cannot be compared yet: it and random have not both reached 20 labels",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(runs: list[dict[str, Any]], sentence: str) -> None:
    (found,) = said(results(runs))
    assert found.startswith(sentence)


def test_unfinished_runs_are_named() -> None:
    data = two_selectors()
    data["runs"][3]["steps"].pop()
    (sentence,) = unfinished(summarise(parse_record(data)))
    assert sentence.startswith("cdal-cs: 1 of 2 runs have reached the last budget")
    assert unfinished(summarise(parse_record(two_selectors()))) == ()
