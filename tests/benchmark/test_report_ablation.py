from __future__ import annotations

from pathlib import Path

import pytest
from support.recorded import results, run, two_selectors, write

from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.report import write_ablation


def folders(tmp_path: Path) -> dict[str, Path]:
    found = {value: tmp_path / value for value in ("0", "0.2")}
    for folder in found.values():
        folder.mkdir()
    return found


def test_runs_side_by_side(tmp_path: Path) -> None:
    runs = folders(tmp_path)
    write(runs["0"], two_selectors())
    write(runs["0.2"], results([run("random", 0, {10: 0.5, 30: 0.6})]))
    table = write_ablation(tmp_path, "noise", runs).read_text(encoding="utf-8")
    assert table.splitlines()[0] == "### By noise: accuracy at the last budget, in per cent"
    assert table.splitlines()[4:] == [
        "| noise | random | cdal-cs |",
        "| --- | ---: | ---: |",
        "| 0 | 73.0 ± 38.1 | 81.0 ± 12.7 |",
        "| 0.2 | 60.0 | – |",
    ]
    assert (tmp_path / "ablation.svg").read_bytes().startswith(b"<?xml")


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"results\.json"):
        write_ablation(tmp_path, "noise", folders(tmp_path))
