"""The whole loop, through the command, on a few drawn scenes and networks trained for one epoch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cdal.benchmark import command, trainer
from cdal.benchmark.folder import SimulationFolder
from cdal.benchmark.loaded_data import LoadedFeatures, LoadedImages
from cdal.benchmark.noise import Noise
from cdal.benchmark.trainer import Trainer
from cdal.cli import main
from cdal.models import TaskNetwork, fit

pytestmark = pytest.mark.slow

Scenes = Callable[[str], Path]
HEADS = (
    "bald",
    "mc-dropout",
    "committee",
    "committee:disagreement=vote",
    "suggestive-annotation",
    "dropquery",
)
CURVES = "random,cdal-cs,cdal-rl:epochs=2,policy=once"


@pytest.fixture(autouse=True)
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_report", lambda *_: True)


FEW_EPOCHS = ("--epochs", "1")


def simulate(data: Path, out: Path, *more: str, recipe: Sequence[str] = FEW_EPOCHS) -> int:
    usual = ("--selectors", CURVES, "--initial", "6", "--step", "3", "--until", "12")
    size = ("--seeds", "1", "--image-size", "32", "--network", "mobilenet_v3_small")
    return main(
        ["benchmark", "--dataset", str(data), "--out", str(out), *usual, *size, "--device", "cpu",
         *recipe, *more]
    )  # fmt: skip


def results(out: Path) -> dict[str, Any]:
    """The content of results.json without the seconds, which differ in every run."""
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    for run in found["runs"]:
        for step in run["steps"]:
            assert set(step.pop("seconds")) == {"train", "score", "select", "evaluate", "other"}
    return found


def picked(found: dict[str, Any]) -> dict[str, list[list[str]]]:
    return {run["selector"]: [s["picked"] for s in run["steps"]] for run in found["runs"]}


@pytest.fixture(scope="module")
def whole(
    scenes: Scenes, tmp_path_factory: pytest.TempPathFactory, monkeymodule: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The results of an uninterrupted simulation."""
    monkeymodule.setattr(command, "_report", lambda *_: True)
    out = tmp_path_factory.mktemp("whole")
    assert simulate(scenes("classification"), out) == 0
    assert not (out / "models").exists()
    return results(out)


@pytest.fixture(scope="module")
def monkeymodule() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_all_selectors_begin_with_the_same_set_and_model(whole: dict[str, Any]) -> None:
    first = [run["steps"][0] for run in whole["runs"]]
    assert len(first) == 3
    assert all(step == first[0] for step in first)
    assert len(set(first[0]["picked"])) == 6


def test_the_labelled_set_grows_by_picks_of_the_pool(whole: dict[str, Any]) -> None:
    for run in whole["runs"]:
        assert [step["labelled"] for step in run["steps"]] == [6, 9, 12]
        names = [name for step in run["steps"] for name in step["picked"]]
        assert [len(step["picked"]) for step in run["steps"]] == [6, 3, 3]
        assert len(set(names)) == 12
        assert all(name.startswith("train/") for name in names)


def test_selectors_pick_differently(whole: dict[str, Any]) -> None:
    by_label = picked(whole)
    assert by_label["random"][1] != by_label["cdal-cs"][1]


def test_only_those_that_look_have_the_pool_scored(whole: dict[str, Any]) -> None:
    scored = {r["selector"]: [s["images"]["scored"] for s in r["steps"]] for r in whole["runs"]}
    assert scored["random"] == [0, 0, 0]
    assert scored["cdal-cs"] == [0, 18, 18]


def test_what_is_learnt_from_is_exactly_what_was_picked(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    train = Trainer.train

    def watched(self: Trainer, rows: Any, *more: Any) -> Any:
        seen.append(list(rows))
        return train(self, rows, *more)

    monkeypatch.setattr(Trainer, "train", watched)
    assert simulate(scenes("classification"), tmp_path, "--selectors", "cdal-cs") == 0
    pool = json.loads((tmp_path / "images.json").read_text())["pool"]
    steps = picked(results(tmp_path))["cdal-cs"]
    revealed = [[name for step in steps[: k + 1] for name in step] for k in range(3)]
    assert [[pool[row] for row in rows] for rows in seen] == revealed


def test_an_oracle_learns_the_whole_pool_once_and_says_what_to_pick(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[int] = []
    train = Trainer.train

    def watched(self: Trainer, rows: Any, *more: Any) -> Any:
        learnt.append(len(rows))
        return train(self, rows, *more)

    monkeypatch.setattr(Trainer, "train", watched)
    out = tmp_path / "out"
    selectors = ("--selectors", "cdal-cs,core-set", "--keep-scores", "--oracle")
    assert simulate(scenes("classification"), out, *selectors) == 0
    assert sorted(learnt) == [6, 9, 9, 12, 12, 18]
    # It scores the pool as before, however many labels there are.
    first, second = (
        load_file(out / "scores" / f"seed0-cdal-cs-{labels:06}.safetensors") for labels in (6, 9)
    )
    assert torch.equal(first["mixtures"], second["mixtures"])
    assert not (out / "models").exists()


@pytest.mark.parametrize("kill_at", [0, 1, 3, 4, 8])
def test_killed_before_a_step_is_kept_it_goes_on(
    whole: dict[str, Any],
    scenes: Scenes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kill_at: int,
) -> None:
    write = SimulationFolder.write_step
    calls = iter(range(9))

    def killed(self: SimulationFolder, *step: Any) -> None:
        if next(calls) == kill_at:
            raise KeyboardInterrupt
        write(self, *step)

    with monkeypatch.context() as patch:
        patch.setattr(SimulationFolder, "write_step", killed)
        assert simulate(scenes("classification"), tmp_path) == 130
    assert len(list((tmp_path / "steps").iterdir())) == kill_at
    assert simulate(scenes("classification"), tmp_path) == 0
    assert results(tmp_path) == whole


def test_killed_in_a_training_it_goes_on_from_the_last_weights(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, warm = scenes("classification"), ("--warm-start", "--selectors", "cdal-cs")
    assert simulate(data, tmp_path / "whole", *warm) == 0
    calls = iter(range(9))

    def killed(network: TaskNetwork, *arguments: Any) -> Any:
        report = fit(network, *arguments)
        if next(calls) == 2:
            raise KeyboardInterrupt
        return report

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "fit", killed)
        assert simulate(data, tmp_path / "killed", *warm) == 130
    assert simulate(data, tmp_path / "killed", *warm) == 0
    assert results(tmp_path / "killed") == results(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["--warm-start", "--no-warm-start"])
def test_a_warm_start_is_from_the_last_weights_and_else_from_the_first(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    begun: list[Tensor] = []
    ended: list[Tensor] = []

    def watched(network: TaskNetwork, *arguments: Any) -> Any:
        weight = next(network.module.parameters())
        begun.append(weight.detach().clone())
        report = fit(network, *arguments)
        ended.append(weight.detach().clone())
        return report

    monkeypatch.setattr(trainer, "fit", watched)
    assert simulate(scenes("classification"), tmp_path, kind, "--selectors", "random") == 0
    assert len(begun) == 3
    starts = [begun[0], *ended[:2]] if kind == "--warm-start" else [begun[0]] * 3
    assert all(torch.equal(one, other) for one, other in zip(begun, starts, strict=True))
    assert not torch.equal(begun[0], ended[0])


def test_what_is_done_is_not_done_again(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = scenes("classification")
    assert simulate(data, tmp_path, "--selectors", "random") == 0
    trained: list[int] = []
    train = Trainer.train

    def watched(self: Trainer, rows: Any, seed: int, *more: Any) -> Any:
        trained.append(seed)
        return train(self, rows, seed, *more)

    monkeypatch.setattr(Trainer, "train", watched)
    assert simulate(data, tmp_path, "--selectors", "random") == 0
    assert trained == []
    assert simulate(data, tmp_path, "--selectors", "random", "--seeds", "2") == 0
    assert trained == [1, 1, 1]


def test_an_added_selector_begins_with_the_models_that_the_others_had(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = scenes("classification")
    assert simulate(data, tmp_path, "--oracle", "--selectors", "cdal-cs") == 0
    before = results(tmp_path)["runs"]
    trained: list[int] = []
    train = Trainer.train

    def watched(self: Trainer, rows: Any, *more: Any) -> Any:
        trained.append(len(rows))
        return train(self, rows, *more)

    monkeypatch.setattr(Trainer, "train", watched)
    assert simulate(data, tmp_path, "--oracle", "--selectors", "cdal-cs,core-set") == 0
    assert trained == [9, 12]
    first, second = results(tmp_path)["runs"]
    assert [first] == before
    assert second["steps"][0] == first["steps"][0]
    assert not (tmp_path / "models").exists()


def test_other_settings_are_refused(
    scenes: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = scenes("classification")
    assert simulate(data, tmp_path, "--selectors", "random") == 0
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.json")}
    assert simulate(data, tmp_path, "--selectors", "random", "--noise", "0.5") == 2
    assert "noise was 0.0 and is 0.5" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.json")} == before


def test_noise_reaches_the_training_and_not_the_test(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revealed: list[int] = []
    trained: list[list[int]] = []

    def always_first(_: Noise, row: int, target: Tensor) -> Tensor:
        revealed.append(row)
        return torch.zeros_like(target)

    def watched(network: TaskNetwork, images: LoadedImages, *more: Any) -> Any:
        trained.append([int(images[row][1]) for row in range(len(images))])
        return fit(network, images, *more)

    monkeypatch.setattr(Noise, "__call__", always_first)
    monkeypatch.setattr(trainer, "fit", watched)
    noisy = ("--noise", "0.5", "--selectors", "random", "--until", "6")
    assert simulate(scenes("classification"), tmp_path, *noisy) == 0
    assert trained == [[0] * 6]
    pool = json.loads((tmp_path / "images.json").read_text())["pool"]
    assert [pool[row] for row in revealed] == picked(results(tmp_path))["random"][0]
    counts = results(tmp_path)["runs"][0]["steps"][0]["metrics"]["per_class"]
    true = [path.parent.name for path in scenes("classification").glob("test/*/*")]
    assert {name: score["count"] for name, score in counts.items()} == {
        name: true.count(name) for name in counts
    }


def test_a_bias_leaves_classes_out_of_the_initial_set_alone(scenes: Scenes, tmp_path: Path) -> None:
    biased = ("--bias", "3", "--selectors", "random", "--until", "18")
    assert simulate(scenes("classification"), tmp_path, *biased) == 0
    steps = picked(results(tmp_path))["random"]
    classes = {name.split("/")[1] for name in steps[0]}
    assert len(classes) <= 3
    assert {name.split("/")[1] for step in steps for name in step} > classes


def test_an_ablation_of_an_option_has_a_folder_for_each_value(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read = LoadedFeatures.read.__func__  # type: ignore[attr-defined]

    def watched(cls: type[LoadedFeatures], data: Any, *more: Any) -> LoadedFeatures:
        reads.append(len(data))
        found: LoadedFeatures = read(cls, data, *more)
        return found

    monkeypatch.setattr(LoadedFeatures, "read", classmethod(watched))
    out, data = str(tmp_path), str(scenes("classification"))
    size = ("--initial", "3", "--step", "1", "--until", "3", "--seeds", "1")
    network = ("--image-size", "32", "--device", "cpu")
    given = ["benchmark", "ablation", "biased-initial", "--dataset", data, "--out", out]
    assert main([*given, *size, *network]) == 0
    for value in (0, 1, 2):
        found = results(tmp_path / f"bias-{value}")
        assert found["settings"]["bias"] == value
        images = json.loads((tmp_path / f"bias-{value}" / "images.json").read_text())
        assert len(images["pool"]) == len(images["counts"]) == 18
        assert [run["selector"] for run in found["runs"]] == [
            "random", "core-set", "cdal-cs", "cdal-rl",
        ]  # fmt: skip
    assert reads == [18, 6]
    assert (tmp_path / "features").exists()
    rows = (tmp_path / "ablation.md").read_text().splitlines()[-3:]
    assert [row.split(" | ")[0] for row in rows] == ["| 0", "| 1", "| 2"]


def test_selectors_that_compare_opinions_of_a_head_get_them(scenes: Scenes, tmp_path: Path) -> None:
    heads = ("--network", "timm:tf_efficientnet_lite0", "--selectors", ",".join(HEADS))
    assert simulate(scenes("classification"), tmp_path, *heads, "--noise", "0.1", recipe=()) == 0
    found = picked(results(tmp_path))
    assert {name: [len(step) for step in steps] for name, steps in found.items()} == {
        name: [6, 3, 3] for name in HEADS
    }


@pytest.mark.parametrize(
    ("task", "network", "curves"),
    [
        ("segmentation", "timm:tf_efficientnet_lite0", ("suggestive-annotation",)),
        ("detection", "timm:tf_efficientnet_lite0", ("mc-dropout",)),
        ("classification", "mobilenet_v3_small", ("committee", "dropquery")),
    ],
)
def test_dense_heads_and_networks_that_are_trained_in_full_have_opinions(
    scenes: Scenes, tmp_path: Path, task: str, network: str, curves: tuple[str, ...]
) -> None:
    few = ("--network", network, "--selectors", ",".join(curves), "--until", "9")
    assert simulate(scenes(task), tmp_path, *few) == 0
    found = picked(results(tmp_path))
    assert {name: [len(step) for step in steps] for name, steps in found.items()} == {
        name: [6, 3] for name in curves
    }


def test_selectors_with_a_companion_train_it(scenes: Scenes, tmp_path: Path) -> None:
    curves = ("learning-loss", "vaal:layers=small,epochs=1")
    assert simulate(scenes("classification"), tmp_path, "--selectors", ",".join(curves)) == 0
    found = picked(results(tmp_path))
    assert {name: [len(step) for step in steps] for name, steps in found.items()} == {
        name: [6, 3, 3] for name in curves
    }


def test_the_first_labels_may_be_typical_images(scenes: Scenes, tmp_path: Path) -> None:
    heads = ("--network", "timm:tf_efficientnet_lite0", "--selectors", "random")
    drawn = []
    for first in ("random", "typical"):
        out = tmp_path / first
        given = (*heads, "--first-round", first)
        assert simulate(scenes("classification"), out, *given, recipe=()) == 0
        drawn.append(results(out)["runs"][0]["steps"][0]["picked"])
    assert len(set(drawn[1])) == 6
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--selectors", "bald", "--network", "resnet18"), "resnet18 drops none"),
        (("--first-round", "typical"), "use --training head"),
        (("--network", "timm:tf_efficientnet_lite0", "--selectors", "vaal"), "--training full"),
        (
            ("--network", "timm:tf_efficientnet_lite0", "--first-round", "typical", "--bias", "1"),
            "random first round only",
        ),
    ],
)
def test_what_does_not_suit_a_network_is_refused(
    scenes: Scenes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert simulate(scenes("classification"), tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err


def test_detectors_that_are_trained_in_full_have_no_opinions(
    scenes: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = ("--network", "ssdlite320_mobilenet_v3_large", "--selectors", "committee")
    assert simulate(scenes("detection"), tmp_path, *detector) == 2
    assert "use --training head" in capsys.readouterr().err
