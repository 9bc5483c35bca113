from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.recorded import results, run, step, two_selectors, write

from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.report.record import parse_record, read_record


def test_what_is_read(tmp_path: Path) -> None:
    record = read_record(write(tmp_path, two_selectors()) / "results.json")
    assert record.selectors == ("random", "cdal-cs")
    assert record.budgets == (10, 20, 30)
    assert (record.metric, record.pool) == ("accuracy", 100)
    assert record.of("cdal-cs")[1].curve == {10: 0.52, 20: 0.76, 30: 0.82}
    assert record.of("random")[0].steps[0].per_class == {"cat": 0.5, "dog": 0.5}


def test_complete_runs_come_to_the_last_budget() -> None:
    record = parse_record(results([run("a", 0, {10: 0.1, 20: 0.2}), run("a", 1, {10: 0.1})]))
    assert list(record.complete("a")) == [0]
    assert [found.last for found in record.runs] == [20, 10]


def test_a_benchmark_that_has_just_begun() -> None:
    record = parse_record(results([]))
    assert (record.runs, record.budgets, record.complete("random")) == ((), (), {})


def test_steps_are_ordered_by_labels() -> None:
    steps = [step(20, 0.2), step(10, 0.1)]
    record = parse_record(results([{"selector": "a", "seed": 0, "steps": steps}]))
    assert [found.labelled for found in record.runs[0].steps] == [10, 20]


def broken(**changes: Any) -> dict[str, Any]:
    return {**results([run("a", 0, {10: 0.1})]), **changes}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "format 1"),
        (broken(format=2), "format 1"),
        (broken(runs=None), "missing or malformed"),
        (broken(runs=[{}]), "malformed entry: .steps."),
        (broken(runs=[{"selector": "a", "seed": "x", "steps": []}]), "malformed entry: .*'x'"),
        (broken(dataset={}), "malformed entry: .task."),
        (broken(dataset={**results([])["dataset"], "pool": "many"}), "pool is 'many'"),
        (broken(runs=[{"selector": "a", "seed": 0, "steps": [{}]}]), "metrics"),
        (
            broken(
                runs=[
                    {
                        "selector": "a",
                        "seed": 0,
                        "steps": [step(1, 0.1), step(2, 0.1, metric="miou")],
                    }
                ]
            ),
            "mixes the metrics accuracy, miou",
        ),
    ],
)
def test_what_is_no_record_is_named(data: Any, said: str) -> None:
    with pytest.raises(BenchmarkError, match=said):
        parse_record(data)


def test_a_file_that_is_not_there_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="cannot be read"):
        read_record(tmp_path / "results.json")
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(BenchmarkError, match="is not JSON"):
        read_record(tmp_path / "results.json")
