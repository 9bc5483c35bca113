"""Exported networks, read back by onnxruntime and torch, say what the networks say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cdal.cli import main
from cdal.export import CheckError, ExportError, export, open_export
from cdal.export.check import check
from cdal.export.layers import layers_of, named
from cdal.models import ModelError, TaskNetwork, make_network

pytestmark = pytest.mark.slow

SIDE = 64
CLASSES = ("cat", "dog", "emu")
ROOT = Path(__file__).parents[2]

NETWORKS = {
    "classification": "resnet18",
    "multilabel": "resnet18",
    "segmentation": "lraspp_mobilenet_v3_large",
    "detection": "ssdlite320_mobilenet_v3_large",
}

DENSE = ("segmentation", "detection")
BODY = {
    "classification": "trunk",
    "multilabel": "trunk",
    "segmentation": "backbone",
    "detection": "backbone",
}


def network(task: str, head: bool) -> TaskNetwork:
    """An untrained network that nevertheless finds something."""
    made = make_network(
        task, None if head else NETWORKS[task], CLASSES, SIDE, pretrained="auto" if head else False
    )
    draws = torch.Generator().manual_seed(1)
    for name, weights in made.module.named_parameters():
        if name in ("weight", "classify.weight", "head.weight"):
            weights.data = torch.randn(weights.shape, generator=draws)
        elif "classification_head" in name and weights.ndim == 4:
            weights.data = torch.randn(weights.shape, generator=draws) / 4
    if not head:  # or else the deepest features are nearly 0, and all boxes equally probable
        for layer in made.module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
        layers_of(made).train()
        made.module.get_submodule(BODY[task])(torch.randn(8, 3, SIDE, SIDE, generator=draws))
        made.module.eval()
    return made


@pytest.mark.parametrize("head", [True, False], ids=["head", "full"])
@pytest.mark.parametrize("task", NETWORKS)
def test_onnxruntime_finds_what_the_network_finds(task: str, head: bool, tmp_path: Path) -> None:
    made = network(task, head)
    assert export(made, tmp_path / "out", "onnx", 0.25) < 0.02
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert about["labels"] == list(CLASSES)
    assert about["thresholds"] == {"score": 0.25}
    assert about["input"]["resize"] == ("fit" if head and task in DENSE else "stretch")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    exported = layers_of(made)
    shape = (1, 3, 32, 96) if exported.fits else (1, 3, SIDE, SIDE)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    found = session.run(None, {about["input"]["name"]: images.numpy()})
    assert [output.name for output in session.get_outputs()] == list(about["outputs"])
    with torch.inference_mode():
        wanted = named(exported, exported(images))
    for output, tensor in zip(found, wanted.values(), strict=True):
        assert output.size
        if tensor.dtype.is_floating_point:
            np.testing.assert_allclose(output, tensor.numpy(), atol=1e-3)


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
@pytest.mark.parametrize("file_format", ["torchscript", "safetensors"])
def test_torch_reads_the_other_formats(file_format: str, tmp_path: Path) -> None:
    made = network("detection", head=True)
    assert export(made, tmp_path / "out", file_format) < 0.02
    if file_format == "safetensors":
        assert open_export(tmp_path / "out", torch.device("cpu")).manifest == made.manifest
        assert (tmp_path / "out" / "tf_efficientnet_lite0.safetensors").exists()
    else:
        boxes, _, _ = torch.jit.load(tmp_path / "out" / "model.pt")(torch.zeros(1, 3, 32, SIDE))
        assert boxes.shape[1] == 4


def test_what_says_something_else_is_not_kept(tmp_path: Path) -> None:
    made = network("detection", head=True)
    exported = layers_of(made)

    def moved(images: Tensor) -> dict[str, Tensor]:
        found = named(exported, exported(images))
        return {**found, "boxes": found["boxes"] + 20}

    with torch.inference_mode(), pytest.raises(CheckError):
        check(made, exported, moved)


def test_a_model_that_sees_tiles_is_exported_for_cdal_only(tmp_path: Path) -> None:
    made = make_network("detection", None, CLASSES, tile=128)
    with pytest.raises(ExportError, match="tiles"):
        export(made, tmp_path / "out", "onnx")
    export(made, tmp_path / "out", "safetensors")
    for number, size in enumerate(((60, 40), (300, 200))):
        Image.new("RGB", size, "red").save(tmp_path / f"{number}.png")
    images = [str(tmp_path / f"{number}.png") for number in range(2)]
    tasks = tmp_path / "tasks.json"
    assert main(["predict", str(tmp_path / "out"), *images, "--out", str(tasks)]) == 0
    assert len(json.loads(tasks.read_text())) == 2
    assert open_export(tmp_path / "out", torch.device("cpu")).manifest.tile == 128


def test_an_export_does_not_overwrite(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="exists"):
        export(network("classification", head=True), tmp_path, "onnx")


def test_rotated_boxes_are_not_exported(tmp_path: Path) -> None:
    made = network("detection", head=True)
    made.module.begin_turning()  # type: ignore[operator]
    with pytest.raises(ExportError, match="rotated"):
        export(made, tmp_path / "new", "onnx")
    assert not (tmp_path / "new").exists()


def test_only_what_cdal_can_load_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--format safetensors"):
        open_export(tmp_path, torch.device("cpu"))


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(network("detection", head=True), tmp_path / "project-1-version-3-onnx", "onnx", 0.3)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    text = (ROOT / "docs" / "export.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    found: dict[str, np.ndarray] = {}
    exec(code, found)
    assert found["boxes"].shape[1:] == (4,)
    assert found["boxes"].max() <= 90
