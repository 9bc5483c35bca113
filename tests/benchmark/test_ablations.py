from __future__ import annotations

import pytest

from cdal.benchmark.ablations import ABLATIONS
from cdal.benchmark.curve import read_curves
from cdal.benchmark.errors import BenchmarkError
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
    values = ablation.values_for(lambda: "classification")
    assert values
    assert all(isinstance(ablation.read(value), kind) for value in values)


@pytest.mark.parametrize("task", sorted(ARCHITECTURES))
def test_networks_are_those_of_the_task(task: str) -> None:
    values = ABLATIONS["network"].values_for(lambda: task)
    assert len(values) > 1
    assert set(values) <= set(ARCHITECTURES[task])
