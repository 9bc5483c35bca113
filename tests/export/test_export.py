"""Exported networks, read back by onnxruntime and torch, say what the networks say."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from cdal.cli import main
from cdal.export import CheckError, ExportError, export, open_export
from cdal.export.check import check, network_input
from cdal.export.layers import layers_of, named
from cdal.export.tiles import Axis
from cdal.models import ModelError, TaskNetwork, make_network
from cdal.models.dense_head import DenseHeadNetwork
from cdal.models.tiling import Tiling

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


def network(task: str, head: bool, tile: int | None = None) -> TaskNetwork:
    """An untrained network that nevertheless finds something."""
    made = make_network(
        task,
        None if head else NETWORKS[task],
        CLASSES,
        tile or SIDE,
        pretrained="auto" if head else False,
        tile=tile,
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


def test_what_is_no_number_is_refused() -> None:
    made = network("classification", head=False)
    exported = layers_of(made)

    def broken(images: Tensor) -> dict[str, Tensor]:
        return {"probabilities": torch.full((len(images), len(CLASSES)), torch.nan)}

    with torch.inference_mode(), pytest.raises(CheckError):
        check(made, exported, broken)


def test_a_full_disk_is_an_error_and_ends_no_process(tmp_path: Path) -> None:
    """Torch's own writer of TorchScript aborts; so it is tried in another process."""
    made = network("classification", head=False)

    def export_to_a_full_disk() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            export(made, tmp_path / "out", "torchscript")
        except OSError as error:
            os._exit(0 if error.errno == errno.EFBIG else 1)
        finally:
            os._exit(2)

    process = multiprocessing.get_context("fork").Process(target=export_to_a_full_disk)
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("task", DENSE)
def test_a_model_that_sees_tiles_is_exported_with_them(task: str, tmp_path: Path) -> None:
    """The export is traced with one tile, and checks itself on images of several."""
    made = network(task, head=True, tile=128)
    assert export(made, tmp_path / "out", "onnx") < 0.02
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert (about["input"]["resize"], about["input"]["scale"]) == ("scale", 1.0)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    outputs = session.run(None, {"images": np.zeros((1, 3, 288, 416), np.float32)})
    assert outputs[0].shape[-2:] == (288, 416) if task == "segmentation" else outputs[0].size


@pytest.mark.parametrize("size", [(64, 96), (160, 96), (290, 410)])
def test_the_maps_of_tiles_are_merged_as_by_the_network(size: tuple[int, int]) -> None:
    made = network("segmentation", head=True, tile=128)
    assert isinstance(made, DenseHeadNetwork)
    noise = torch.rand((1, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * 255
    image = functional.interpolate(noise, size, mode="bilinear")[0].to(torch.uint8)
    prepared = made.prepare(image)[None]
    exported = layers_of(made)
    with torch.inference_mode():
        maps = exported.maps.levels(network_input(made, prepared, exported))  # type: ignore[operator, union-attr]
    for merged, wanted in zip(maps, made.look(prepared)[0].maps, strict=True):
        # The network keeps features in half precision.
        torch.testing.assert_close(merged[0], wanted.float(), rtol=0.01, atol=0.01)


def test_where_tiles_lie_is_the_same_by_tensors() -> None:
    """For 80 lengths each, with several sizes and sides of a tile."""
    for side, tile in ((96, 96), (128, 100), (256, 640), (480, 480)):
        tiling = Tiling(tile, side)
        for length in range(32, 400 * 32, 160):
            axis = Axis.of(tiling, torch.tensor(length))
            spans = tiling._spans(length)
            assert axis.starts.tolist() == [span.start for span in spans]
            assert axis.borders.tolist() == [span.first for span in spans]
            assert int(axis.places[-1, -1]) + 1 == length


def test_a_model_that_sees_tiles_predicts_files(tmp_path: Path) -> None:
    made = make_network("detection", None, CLASSES, tile=128)
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
