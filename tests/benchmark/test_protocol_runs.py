"""Every protocol of the paper, on a tiny copy of its data set's layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.layouts import (
    write_bdd100k,
    write_camvid,
    write_cifar,
    write_cityscapes,
    write_voc,
)
from torchvision.datasets import CIFAR10, CIFAR100

from cdal.benchmark import command
from cdal.benchmark.loaded_data import LoadedImages
from cdal.benchmark.protocol import PROTOCOLS, PUBLISHED
from cdal.cli import main
from cdal.selectors.cdal_rl import CDALRL

WRITERS: dict[str, Callable[[Path], None]] = {
    "voc": write_voc,
    "cityscapes": write_cityscapes,
    "bdd100k": write_bdd100k,
    "camvid": write_camvid,
}
SMALL = {
    "classification": "mobilenet_v3_small",
    "segmentation": "lraspp_mobilenet_v3_large",
    "detection": "ssdlite320_mobilenet_v3_large",
}
MAIN = {"classification": "accuracy", "segmentation": "miou", "detection": "map_voc2007"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_it_runs_to_the_letter(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    layout = PROTOCOLS[name].layout or name
    if layout in WRITERS:
        WRITERS[layout](data)
    else:
        write_cifar(data, CIFAR100 if name == "cifar-100" else CIFAR10, monkeypatch)
    monkeypatch.setattr(command, "_report", lambda *_: True)
    shapes = []
    read = LoadedImages.read

    def reading(*arguments: Any) -> LoadedImages:
        loaded = read(*arguments)
        shapes.append(tuple(loaded[0][0].shape))
        return loaded

    monkeypatch.setattr(LoadedImages, "read", reading)
    task = PROTOCOLS[name].task
    side = "32" if task == "classification" else "64"
    given = [
        "--protocol", f"paper:{name}", "--dataset", str(data), "--out", str(tmp_path / "out"),
        "--selectors", "cdal-rl:epochs=1,cells=4", "--initial", "1", "--step", "1", "--until", "2",
        "--seeds", "1", "--epochs", "1", "--device", "cpu", "--image-size", side,
        "--network", SMALL[task],
    ]  # fmt: skip
    assert main(["benchmark", *given]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["settings"]["protocol"] == name
    assert found["settings"]["options"] == dict(PUBLISHED[task])
    step = found["runs"][0]["steps"][-1]
    assert step["metrics"]["main_name"] == MAIN[task]
    assert len(step["picked"]) == 1
    wide = {"cityscapes": (3, 32, 64), "bdd100k": (3, 32, 64), "camvid": (3, 64, 64)}
    assert set(shapes) == {wide.get(layout, (3, int(side), int(side)))}


def test_the_paper_to_the_letter_and_repaired(
    scenes: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = []
    monkeypatch.setattr(command, "_run_plan", lambda plan, *_: plans.append(plan) or 1)
    given = [
        "--protocol", "paper:cifar-10", "--dataset", str(scenes("classification")), "--network",
        "mobilenet_v3_small", "--image-size", "32", "--selectors",
        "cdal-rl,cdal-rl:policy=once,cdal-cs", "--device", "cpu", "--initial", "3", "--step", "3",
    ]  # fmt: skip
    main(["benchmark", *given, "--out", str(tmp_path / "a")])
    main(["benchmark", *given, "--out", str(tmp_path / "b"), "--repaired"])
    letter, repaired = plans
    for curve in letter.curves[:2]:
        selector = curve.selector("file")
        assert isinstance(selector, CDALRL)
        assert (selector.policy, selector.rewards, selector.sums, selector.missing) == (
            "paper", "cd+vr", "raw", "skip",
        )  # fmt: skip
        assert curve.kind.region == "class"
    assert [curve.policy for curve in letter.curves] == ["each", "once", "each"]
    ours = repaired.curves[0]
    assert ours.selector("file") == CDALRL()
    assert ours.kind.region == "image"


def test_repaired_needs_a_protocol(
    scenes: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(scenes("classification"))
    assert main(["benchmark", "--dataset", data, "--out", str(tmp_path), "--repaired"]) == 2
    assert "--repaired has no effect" in capsys.readouterr().err
