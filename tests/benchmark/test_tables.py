from __future__ import annotations

from support.recorded import results, run, step, two_selectors

from cdal.benchmark.report.classes import per_class
from cdal.benchmark.report.overlap import overlap
from cdal.benchmark.report.record import parse_record
from cdal.benchmark.report.seconds import seconds
from cdal.benchmark.report.summary import summarise
from cdal.benchmark.report.tables import (
    Table,
    budget_table,
    class_table,
    comparison_table,
    overlap_table,
    seconds_table,
)


def test_markdown() -> None:
    table = Table("Title", "Note.", ("labels", "a"), (("10", "50.0"), ("20", "–")))
    assert table.markdown() == (
        "### Title\n\nNote.\n\n| labels | a |\n| --- | ---: |\n| 10 | 50.0 |\n| 20 | – |\n"
    )


def test_nothing_in_a_cell_is_markup() -> None:
    hostile = "a|b\n<img src=x> `c` [d](e) *f* $g$"
    (row,) = Table("t", "n", ("h",), ((hostile,),)).markdown().splitlines()[-1:]
    assert row == r"| a\|b &lt;img src=x&gt; \`c\` \[d\](e) \*f\* \$g\$ |"


def test_metric_at_each_budget() -> None:
    data = two_selectors()
    data["runs"][3]["steps"].pop()
    table = budget_table(summarise(parse_record(data)), "accuracy")
    assert table.header == ("labels", "random", "cdal-cs")
    # The margin of two values d apart is 12.706 · d / 2.
    assert table.rows == (
        ("10", "51.0 ± 12.7", "51.0 ± 12.7"),
        ("20", "61.0 ± 12.7", "73.0 ± 38.1"),
        ("30", "73.0 ± 38.1", "80.0 (1 of 2)"),
    )


def test_against_random() -> None:
    table = comparison_table(summarise(parse_record(two_selectors())), "accuracy")
    assert table.rows == (
        ("random", "2", "61.5 ± 19.1", "73.0 ± 38.1", "–", "–", "–", "–", "–", "–"),
        (
            "cdal-cs",
            "2",
            "69.5 ± 25.4",
            "81.0 ± 12.7",
            "+8.0 ± 6.4",
            "0.04",
            "+8.0 ± 25.4",
            "0.16",
            "20 (20 to 20)",
            "33% (33% to 33%)",
        ),
    )


def test_what_is_not_reached_is_said() -> None:
    data = results(
        [run("random", 0, {10: 0.1, 20: 0.9}), run("margin", 0, {10: 0.1, 20: 0.8})],
    )
    table = comparison_table(summarise(parse_record(data)), "miou")
    assert table.rows[1] == (
        *("margin", "1", "45.0", "80.0", "−5.0", "–", "−10.0", "–"),
        "not reached",
        "none",
    )


def test_what_no_sample_of_the_seeds_reaches_has_no_interval() -> None:
    random = {10: 0.1, 20: 0.9}
    worse = [run("margin", seed, {10: 0.1, 20: 0.8}) for seed in (0, 1)]
    data = results([run("random", 0, random), run("random", 1, random), *worse])
    row = comparison_table(summarise(parse_record(data)), "miou").rows[1]
    assert row[-2:] == ("not reached", "none")


def test_labels_are_rounded_up() -> None:
    data = results([run("random", 0, {10: 0.0, 20: 0.5}), run("margin", 0, {10: 0.0, 20: 0.7})])
    # 10 + 10 · 5/7 = 17.14.
    assert comparison_table(summarise(parse_record(data)), "miou").rows[1][-2:] == ("18", "14%")


def test_seconds() -> None:
    other = {"train": 0.0, "score": 0.0, "select": 0.0, "evaluate": 0.0, "other": 0.0}
    data = results(
        [
            run("random", 0, {10: 0.1, 20: 0.2}),
            {"selector": "idle", "seed": 0, "steps": [step(10, 0.1, seconds=other, images={})]},
            {"selector": "new", "seed": 0, "steps": []},
        ]
    )
    # A step takes 6 + 2 + 1 + 0.5 + 0.5 seconds, trains on 600 images and scores 100.
    assert seconds_table(seconds(parse_record(data))).rows == (
        ("random", "6.0 s", "2.0 s", "1.0 s", "500 ms", "500 ms", "5.0", "100", "50"),
        ("idle", *["0 ms"] * 5, "–", "–", "–"),
    )


def test_classes_at_the_last_budget() -> None:
    data = results(
        [
            {"selector": "a", "seed": 0, "steps": [step(10, 0.5, per_class={"cat": 0.1})]},
            {
                "selector": "b",
                "seed": 0,
                "steps": [step(10, 0.5, per_class={"cat": 0.3, "emu": None, "dog": 0.4})],
            },
        ]
    )
    table = class_table(per_class(parse_record(data)), "miou", 10)
    assert table.title == "Each class with 10 labels: IoU in per cent"
    assert table.header == ("class", "a", "b")
    assert table.rows == (("cat", "10.0", "30.0"), ("dog", "–", "40.0"))


def test_overlap_by_budget() -> None:
    table = overlap_table(overlap(parse_record(two_selectors())))
    assert table.header == ("selectors", "20 labels", "30 labels")
    assert table.rows == (("random, cdal-cs", "0.0", "0.0"),)
