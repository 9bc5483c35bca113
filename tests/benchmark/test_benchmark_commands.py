"""The command ``cdal benchmark``: a smoke run of each task, and what it refuses."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from cdal.benchmark import command
from cdal.benchmark.folder import SimulationFolder
from cdal.cli import main

Scenes = Callable[[str], Path]
METRICS = {"classification": "accuracy", "segmentation": "miou", "detection": "map_50"}
PARTS = {"train", "score", "select", "evaluate", "other"}


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(METRICS))
def test_a_smoke_run(
    task: str, scenes: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        "--dataset", str(scenes(task)), "--out", str(tmp_path / "out"), "--task", task,
        "--selectors", "random,cdal-cs", "--initial", "30%", "--step", "20%", "--until", "50%",
        "--seeds", "1", "--image-size", "64", "--device", "cpu", "--keep-scores",
    ]  # fmt: skip
    if task != "classification":  # whose head is a logistic regression
        given += ["--epochs", "1"]
    if task == "classification":  # one as a process of its own, whose imports take half the time
        command = [sys.executable, "-W", "error", "-m", "cdal", "benchmark", *given]
        ended = subprocess.run(command, capture_output=True, text=True)
        status, said, progress = ended.returncode, ended.stdout, ended.stderr
    else:
        status = main(["benchmark", *given])
        said, progress = capsys.readouterr()
    assert status == 0, progress
    assert said == ""
    assert "(100%, 0 s left)" in progress
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["dataset"]["task"] == task
    assert (found["dataset"]["pool"], found["dataset"]["test"]) == (18, 6)
    assert found["settings"]["network"] == "timm:tf_efficientnet_lite0"
    assert [run["selector"] for run in found["runs"]] == ["random", "cdal-cs"]
    for run in found["runs"]:
        assert [step["labelled"] for step in run["steps"]] == [5, 9]
        for step in run["steps"]:
            assert step["metrics"]["main_name"] == METRICS[task]
            assert set(step["metrics"]["per_class"]) == set(found["dataset"]["classes"])
            assert set(step["seconds"]) == PARTS
            assert step["seconds"]["train"] > 0
            assert step["images"]["trained"] == step["labelled"]
    assert (tmp_path / "out" / "scores" / "seed0-cdal-cs-000005.safetensors").exists()
    assert (tmp_path / "out" / "report.html").exists()
    assert any((tmp_path / "out" / "features").glob("*/*.safetensors"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_a_sentence(
    error: Exception,
    scenes: Scenes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(SimulationFolder, "write_images", full)
    given = ["--dataset", str(scenes("classification")), "--out", str(tmp_path), "--step", "20%"]
    assert main(["benchmark", *given]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("cdal benchmark: ")
    assert "No space left on device" in last
    assert "to resume" in last


def test_ctrl_c_in_a_report_resumes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_report", stop)
    assert main(["benchmark", "report", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--dataset", "nowhere"], "nowhere is neither a folder nor a zip"),
        (["--until", "200%"], "--until must be a number of images or a share"),
        (["--until", "100"], "--until 100 is more than the 18 images"),
        (["--seeds", "0"], "--seeds must be at least 1, not 0"),
        (["--noise", "2"], "--noise must be from 0 to 1"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--selectors", "best"], 'unknown selector "best"'),
        (["--selectors", "random", "--alpha", "0.5"], "--alpha has no effect on random"),
        (["--classes", "ship"], "'ship' is not one of them"),
        (["--task", "detection"], "a layout for classification"),
        (["--training", "head", "--network", "resnet18"], "--training head does not suit"),
        (["--training", "full", "--network", "timm:resnet18"], "--training full does not suit"),
        (["--network", "vgg99"], 'The architecture "vgg99" is not one of'),
        (["--device", "tpu"], 'The device "tpu" is not one of'),
        (["--unlabelled", "background"], "--unlabelled has no effect"),
        (["--protocol", "paper"], "is not one of the paper's data sets"),
        (["--protocol", "paper:mnist"], "--protocol must be paper or one of paper:cifar-10"),
        (["--protocol", "paper:voc"], "a layout for classification"),
        (["--epochs", "-1"], "epochs must be positive"),
        (["--epochs", "5"], "--epochs has no effect on a head for classification"),
        (["--warm-start"], "--warm-start has no effect on a head for classification"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    given: list[str],
    message: str,
    scenes: Scenes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = ["--dataset", str(scenes("classification")), "--out", str(tmp_path / "out")]
    assert main(["benchmark", *data, "--initial", "6", "--step", "3", *given]) == 2
    said = capsys.readouterr().err
    assert said.startswith("cdal benchmark: ")
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_masks_of_one_class_are_refused_in_a_sentence(
    scenes: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes("segmentation"), data)
    (data / "classes.txt").write_text("disc\n")
    given = ["--dataset", str(data), "--out", str(tmp_path / "out"), "--initial", "6"]
    assert main(["benchmark", *given, "--step", "3", "--image-size", "32"]) == 2
    refusal = capsys.readouterr().err
    assert refusal.startswith("cdal benchmark: ")
    assert 'only "disc"' in refusal
    assert refusal.endswith("or add a class.\n")


@pytest.mark.parametrize("missing", ["--dataset", "--out"])
def test_a_missing_path_is_named(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"--dataset": "images", "--out": "results"}
    del given[missing]
    assert main(["benchmark", *(word for pair in given.items() for word in pair)]) == 2
    assert capsys.readouterr().err == f"cdal benchmark: {missing} is missing.\n"


def test_a_report_needs_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "report", str(tmp_path)]) == 2
    assert "results.json cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_it_does_without_what_reports_are_made_with(
    scenes: Scenes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That it also imports without them is tested in test_imports.py."""
    for name in ["jinja2", "sklearn", *sys.modules]:
        if name.startswith("cdal.benchmark.report"):
            monkeypatch.delitem(sys.modules, name)
        elif name.partition(".")[0] in ("jinja2", "sklearn"):
            monkeypatch.setitem(sys.modules, name, None)
    given = [
        "--dataset", str(scenes("classification")), "--out", str(tmp_path), "--selectors", "random",
        "--initial", "4", "--step", "1", "--until", "4", "--seeds", "1", "--image-size", "32",
        "--device", "cpu",
    ]  # fmt: skip
    assert main(["benchmark", *given]) == 0
    assert "no report: " in capsys.readouterr().err
    assert (tmp_path / "results.json").exists()
