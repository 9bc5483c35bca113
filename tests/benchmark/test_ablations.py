from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from cdal.benchmark import command
from cdal.benchmark.ablations import ABLATIONS
from cdal.benchmark.curve import read_curves
from cdal.benchmark.errors import BenchmarkError
from cdal.cli import main
from cdal.datasets.layouts import TASKS
from cdal.models.registry import ARCHITECTURES

CLASSES = ("bird", "boat", "car", "tree")


@pytest.mark.parametrize("name", sorted(ABLATIONS))
def test_its_curves_are_valid_and_random_is_among_them(name: str) -> None:
    task = "detection" if name == "boxes" else "segmentation"
    curves = read_curves(ABLATIONS[name].labels(CLASSES), {}, task, CLASSES)
    assert "random" in {curve.label for curve in curves}
    assert len(curves) > 2


def test_names_of_classes_are_filled_in() -> None:
    labels = ABLATIONS["classes"].labels(CLASSES)
    assert labels.endswith("cdal-rl:reward=cd+vr,classes=bird+boat+car")


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(BenchmarkError, match="at least three classes"):
        ABLATIONS["classes"].labels(("bird", "boat"))


@pytest.mark.parametrize(("name", "kind"), [("biased-initial", int), ("noise", float)])
def test_values_are_of_their_options_type(name: str, kind: type) -> None:
    ablation = ABLATIONS[name]
    values = ablation.values("classification", 10)
    assert values
    assert all(isinstance(ablation.read(value), kind) for value in values)


def test_as_many_classes_are_left_out_as_the_paper_does_where_there_are_a_hundred() -> None:
    assert ABLATIONS["biased-initial"].values("classification", 100) == ("0", "10", "20")
    assert ABLATIONS["biased-initial"].values("classification", 10) == ("0", "1", "2")


@pytest.mark.parametrize("task", sorted({*TASKS, *ARCHITECTURES}))
def test_networks_are_those_of_the_task(task: str) -> None:
    values = ABLATIONS["network"].values(task, 10)
    assert len(values) > 1
    assert set(values) <= set(ARCHITECTURES[task])


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("biased-initial", ["--bias", "10"], "--bias varies in biased-initial; .* --values 10"),
        ("noise", ["--noise", "0.5"], "--noise varies in noise"),
        ("step", ["--step", "5"], "--step varies in step"),
        ("network", ["--network", "resnet18"], "--network varies in network"),
        ("reward", ["--selectors", "random"], "--selectors has no effect"),
        ("reward", ["--values", "1"], "--values has no effect"),
        ("noise", ["--values", "few"], "--values must be values of --noise, not 'few'"),
        ("noise", ["--values", "0,0"], "--values must be different values of --noise"),
        ("noise", ["--values", "0.1,0.10"], "--values must be different values of --noise"),
        ("noise", ["--values", "0,2"], "--noise must be from 0 to 1"),
        ("classes", ["--classes", "car+boat"], "--classes .* three different classes"),
        ("classes", ["--classes", "car+boat+tree+bird"], "--classes .* three different classes"),
        ("classes", ["--classes", "car+boat+car"], "--classes .* three different classes"),
        ("alpha", ["--alpha", "0.5"], "--alpha has no effect on random, cdal-rl:reward=cd"),
        ("reward", ["--reward", "cd"], "--reward has no effect"),
    ],
)
def test_what_an_ablation_would_not_heed_is_refused(
    name: str,
    given: list[str],
    message: str,
    scenes: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = ["--dataset", str(scenes("classification")), "--out", str(tmp_path / "out")]
    amounts = ["--initial", "6", *([] if name == "step" else ["--step", "3"])]
    assert main(["benchmark", "ablation", name, *data, *amounts, *given]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_selectors_and_values_beside_an_ablation_apply(
    scenes: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def plan(arguments: argparse.Namespace) -> NoReturn:
        asked.append((arguments.selectors, arguments.bias, arguments.out.name, arguments.seeds))
        raise BenchmarkError("enough")

    monkeypatch.setattr(command, "make_plan", plan)
    given = ["--dataset", str(scenes("classification")), "--out", str(tmp_path), "--seeds", "5"]
    chosen = ["--values", "3,4", "--selectors", "random,entropy"]
    # Options may stand before the subcommand as well.
    assert main(["benchmark", *given, "ablation", "biased-initial", *chosen]) == 2
    assert asked == [("random,entropy", 3, "bias-3", 5)]
