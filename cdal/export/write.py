"""Writing a network in one of the formats, and reading it back to check it."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from cdal.export.check import Run, check
from cdal.export.description import INPUT, describe
from cdal.export.layers import Exported, layers_of, named
from cdal.models import ModelError, TaskNetwork, WeightSources, load_network
from cdal.models.detection.head import DetectionHead
from cdal.models.head import HeadNetwork

DESCRIPTION = "model.json"
OPSET = 17


class ExportError(Exception):
    """A network cannot be exported; the message says what to do."""


Write = Callable[[TaskNetwork, Exported, Path], Run]
"""Writes a network to an existing folder, and returns what runs it from there."""


def export(
    network: TaskNetwork, folder: Path, file_format: str, score_threshold: float = 0.0
) -> float:
    """Write a network to a new folder, completely or not at all.

    Args:
        network: a trained network on the CPU.
        folder: a folder that does not exist yet. ``model.json`` in it describes the network.
        file_format: a key of ``FORMATS``.
        score_threshold: the confidence from which people are shown what it finds.

    Returns:
        The largest difference of a probability between the network and what was written.

    Raises:
        ExportError: the folder exists, a library is missing, or the network finds rotated boxes or
            objects with masks.
        CheckError: what was written does not say what the network says.
    """
    if folder.exists():
        raise ExportError(f"{folder} already exists; name a new folder.")
    if isinstance(network, DetectionHead) and network.is_turning:
        raise ExportError("This model finds rotated boxes, which no export format has.")
    if network.learns_objects:
        raise ExportError(
            f"No export format has the masks of {network.manifest.architecture}'s objects."
        )
    exported = layers_of(network)
    description = describe(network, exported, file_format, score_threshold)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
        made = Path(unfinished) / "export"
        run = FORMATS[file_format](network, exported, made)
        difference = check(network, exported, run)
        description["largest_difference"] = round(difference, 6)
        text = json.dumps(description, indent=2, ensure_ascii=False)
        (made / DESCRIPTION).write_text(f"{text}\n", encoding="utf-8")
        shutil.move(made, folder)
    return difference


def _onnx(network: TaskNetwork, exported: Exported, folder: Path) -> Run:
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        raise ExportError(
            "ONNX needs libraries: pip install 'label-studio-cdal[export]', or choose another "
            "format."
        )
    import onnxruntime

    folder.mkdir()
    file = folder / "model.onnx"
    axes = {INPUT: _free_axes(("N", "3", "H", "W"), exported)}
    axes |= {name: _free_axes(names, exported) for name, names in exported.outputs.items()}
    with _traced():
        # Not by torch.export, which cannot follow the loops of torchvision's detectors.
        torch.onnx.export(
            exported,
            (_example(network),),
            file,
            input_names=[INPUT],
            output_names=list(exported.outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Mapping[str, Tensor]:
        outputs = session.run(list(exported.outputs), {INPUT: images.numpy()})
        return named(exported, [torch.from_numpy(output) for output in outputs])

    return run


def _torchscript(network: TaskNetwork, exported: Exported, folder: Path) -> Run:
    folder.mkdir()
    file = folder / "model.pt"
    with _traced():
        trace, load = (cast(Any, one) for one in (torch.jit.trace, torch.jit.load))
        traced = trace(exported, _example(network), check_trace=False)
        # Not by its own writer, which ends the process if the disk is full.
        file.write_bytes(traced.save_to_buffer())
        module = load(file)

    def run(images: Tensor) -> Mapping[str, Tensor]:
        with torch.inference_mode():
            return named(exported, module(images))

    return run


def _safetensors(network: TaskNetwork, exported: Exported, folder: Path) -> Run:
    network.save(folder)
    if isinstance(network, HeadNetwork):
        backbone = network.backbone
        plain = {name: value.contiguous() for name, value in backbone.weights().items()}
        save_file(plain, folder / f"{backbone.record.name.partition(':')[2]}.safetensors")
    loaded = layers_of(open_export(folder, network.device))

    def run(images: Tensor) -> Mapping[str, Tensor]:
        with torch.inference_mode():
            return named(exported, loaded(images))

    return run


FORMATS: Mapping[str, Write] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "safetensors": _safetensors,
}
"""What writes each format."""


def open_export(folder: Path, device: torch.device) -> TaskNetwork:
    """Load a network that was exported as safetensors, or a model version's own folder.

    Raises:
        ModelError: the folder holds neither, or a file is damaged.
    """
    if not (folder / "manifest.json").exists():
        raise ModelError(
            f"{folder} holds no model that cdal can load: export it with --format safetensors."
        )
    return load_network(folder, device, sources=WeightSources(folder=folder))


def _free_axes(names: tuple[str, ...], exported: Exported) -> dict[int, str]:
    """The axes whose length depends on the images, by their number."""
    free = {"K", *("N" if exported.takes_several else ""), *("HW" if exported.fits else "")}
    return {axis: name for axis, name in enumerate(names) if name in free}


def _example(network: TaskNetwork) -> Tensor:
    side = network.image_size
    return torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(0))


@contextmanager
def _traced() -> Iterator[None]:
    """Without gradients, and without warnings of what depends on sizes: ``check`` sees to that."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield
