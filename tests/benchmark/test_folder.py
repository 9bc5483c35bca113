from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.recorded import SETTINGS

from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.folder import SimulationFolder, read_json, write_json


def step(labelled: int, drawn: list[str], picked: list[str] | None) -> dict[str, object]:
    choice = picked and {
        "picked": picked,
        "scored": 9,
        "seconds": {"score": 1.0, "select": 2.0, "other": 0.5},
        "warnings": [f"after {labelled}"],
        "report": {"reward": 1},
    }
    return {
        "labelled": labelled,
        "metrics": {"main_name": "accuracy"},
        "training": {"epochs": 3},
        "trained": 3 * labelled,
        "drawn": drawn,
        "seconds": {"train": 4.0, "evaluate": 1.0, "other": 0.25},
        "next": choice,
    }


def test_a_choice_belongs_to_the_step_that_it_leads_to(tmp_path: Path) -> None:
    folder = SimulationFolder(tmp_path)
    folder.write_step("random", 1, 10, step(10, ["a"], ["b", "c"]))
    folder.write_step("random", 1, 15, step(15, [], None))
    results = read_json(folder.write_results(SETTINGS, {"pool": 9}, {"threads": 1}))
    assert {key: results[key] for key in ("format", "dataset", "machine")} == {
        "format": 1,
        "dataset": {"pool": 9},
        "machine": {"threads": 1},
    }
    (run,) = results["runs"]
    assert (run["selector"], run["seed"]) == ("random", 1)
    first, second = run["steps"]
    assert first["picked"] == ["a"]
    assert first["images"] == {"trained": 30, "scored": 0}
    assert first["seconds"] == {
        "train": 4.0, "score": 0.0, "select": 0.0, "evaluate": 1.0, "other": 0.25,
    }  # fmt: skip
    assert first["warnings"] == []
    assert second["picked"] == ["b", "c"]
    assert second["images"] == {"trained": 45, "scored": 9}
    assert second["seconds"] == {
        "train": 4.0, "score": 1.0, "select": 2.0, "evaluate": 1.0, "other": 0.75,
    }  # fmt: skip
    assert second["warnings"] == ["after 10"]
    assert second["report"] == {"training": {"epochs": 3}, "selection": {"reward": 1}}


def test_runs_are_in_the_settings_order(tmp_path: Path) -> None:
    folder = SimulationFolder(tmp_path)
    for label, seed in (("cdal-cs", 2), ("random", 1), ("cdal-cs", 0), ("random", 0)):
        folder.write_step(label, seed, 10, step(10, ["a"], None))
    results = read_json(folder.write_results(SETTINGS, {}, {}))
    assert [(run["selector"], run["seed"]) for run in results["runs"]] == [
        ("random", 0), ("random", 1), ("cdal-cs", 0), ("cdal-cs", 2),
    ]  # fmt: skip


def test_steps_after_a_gap_do_not_count(tmp_path: Path) -> None:
    folder = SimulationFolder(tmp_path)
    folder.write_step("random", 0, 10, step(10, ["a"], ["b"]))
    folder.write_step("random", 0, 20, step(20, [], None))
    assert [found["labelled"] for found in folder.steps("random", 0, (10, 15, 20))] == [10]


def test_every_label_has_files_of_its_own(tmp_path: Path) -> None:
    folder = SimulationFolder(tmp_path)
    labels = ("a:b=c", "a/b=c", "a%3Ab=c", "a:b=c,d")
    assert len({folder.scores_file(label, 0, 1) for label in labels}) == len(labels)
    assert {folder.scores_file(label, 0, 1).parent for label in labels} == {tmp_path / "scores"}


def test_a_half_written_file_is_never_there(tmp_path: Path) -> None:
    write_json(tmp_path / "step.json", {"done": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "step.json", {"done": float("nan")})
    assert read_json(tmp_path / "step.json") == {"done": 1}


def test_settings_may_change_until_a_step_is_finished(tmp_path: Path) -> None:
    folder = SimulationFolder(tmp_path)
    write_json(tmp_path / "settings.json", {"seeds": 99})
    folder.begin(SETTINGS)
    assert read_json(tmp_path / "settings.json")["seeds"] == 3
    folder.write_step("random", 0, 10, step(10, ["a"], None))
    write_json(tmp_path / "settings.json", {**SETTINGS.to_dict(), "epochs": 9})
    with pytest.raises(BenchmarkError, match="epochs was 9 and is None"):
        folder.begin(SETTINGS)


def test_nothing_is_left_of_other_settings_of_which_no_step_is_finished(tmp_path: Path) -> None:
    folder = SimulationFolder(tmp_path)

    def keep() -> list[Path]:
        files = [
            folder.shared_model("seed0") / "trained.json",
            folder.model("seed0-random-000010") / "trained.json",
            folder.scores_file("random", 0, 10),
            folder.policy_file("random", 0),
        ]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")
        return files

    folder.begin(SETTINGS)
    files = keep()
    folder.begin(replace(SETTINGS, seeds=SETTINGS.seeds + 1))
    assert all(file.exists() for file in files)
    folder.begin(replace(SETTINGS, epochs=9))
    assert not any(file.exists() for file in files)
    files = keep()
    folder.write_step("random", 0, 10, step(10, ["a"], None))
    folder.begin(replace(SETTINGS, epochs=9))
    assert all(file.exists() for file in files)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchmarkError, match="cannot be written to"):
        SimulationFolder(tmp_path / "file")
    (tmp_path / "settings.json").write_text("{")
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "x.json").write_text("")
    with pytest.raises(BenchmarkError, match="cannot be read; remove it"):
        SimulationFolder(tmp_path).begin(SETTINGS)
