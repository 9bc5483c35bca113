"""The description of a saved network: enough to rebuild it, or to refuse to."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
import torchvision

from cdal.models.backbone import BackboneRecord
from cdal.models.errors import ModelError
from cdal.models.recipe import Recipe
from cdal.models.weight_sources import Origin

FORMAT = 1

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
    }


@dataclass(frozen=True, slots=True)
class Manifest:
    """A network without its weights.

    Attributes:
        task: "classification", "multilabel", "segmentation" or "detection".
        architecture: its name in the registry.
        classes: the names of the C classes, in the order of the network's outputs.
        image_size: the side S, in pixels, to which images are resized.
        seed: the seed of the initial weights.
        pretrained: whether training started from weights that were trained on other images.
        mean: subtracted from each channel of an image in [0, 1].
        std: each channel is then divided by this.
        backbone: the frozen backbone of the head; None if all weights are saved.
        tile: the side, in pixels of an image, of the tiles in which it is seen, each of them at the
            size S; None if images are seen as a whole.
        origin: what training began from; None if an earlier version of this package saved it.
        data_fingerprint: the ``fingerprint`` of its training; "" before training.
        versions: the versions of python, torch and torchvision, for the record.
        format: the format number of the manifest.
    """

    task: str
    architecture: str
    classes: tuple[str, ...]
    image_size: int
    seed: int
    pretrained: bool
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    backbone: BackboneRecord | None = None
    tile: int | None = None
    origin: Origin | None = None
    data_fingerprint: str = ""
    versions: Mapping[str, str] = field(default_factory=_versions)
    format: int = FORMAT

    def __post_init__(self) -> None:
        if len(self.classes) < 1:
            raise ModelError("A network needs at least one class.")
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if repeated:
            raise ModelError(f"Class names must be unique; repeated: {', '.join(repeated)}.")
        if self.image_size < 32:
            raise ModelError(f"image_size must be at least 32; it is {self.image_size}.")

    def to_json(self) -> str:
        """This manifest as an indented JSON object."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest that ``to_json`` wrote.

        Raises:
            ModelError: the text is not a manifest, or its format is not supported.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ModelError(f"The manifest is not JSON: {error}.") from error
        if not isinstance(data, dict) or "format" not in data:
            raise ModelError("The manifest is not a JSON object with a format number.")
        if data["format"] != FORMAT:
            raise ModelError(
                f"The manifest has format {data['format']!r}; this version reads format {FORMAT}."
            )
        # Earlier versions do not have these.
        backbone, origin = data.pop("backbone", None), data.pop("origin", None)
        tile = data.pop("tile", None)
        if tile is not None and type(tile) is not int:
            raise ModelError(f"The manifest's tile cannot be {tile!r}.")
        return cls(
            **_checked(data),
            tile=tile,
            backbone=None if backbone is None else BackboneRecord.from_json(backbone),
            origin=None if origin is None else Origin.from_json(origin),
        )


_KINDS: Mapping[str, type] = {
    "task": str,
    "architecture": str,
    "classes": str,
    "image_size": int,
    "seed": int,
    "pretrained": bool,
    "mean": float,
    "std": float,
    "data_fingerprint": str,
    "versions": dict,
    "format": int,
}
_LENGTHS = {"classes": None, "mean": 3, "std": 3}


def _checked(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a manifest, with their types checked and lists converted to tuples."""
    names = {f.name for f in fields(Manifest)} - {"backbone", "tile", "origin"}
    if set(data) != names:
        wrong = ", ".join(sorted(set(data) ^ names))
        raise ModelError(f"These fields of the manifest are missing or unknown: {wrong}.")
    checked: dict[str, Any] = {}
    for name, kind in _KINDS.items():
        value = data[name]
        if name in _LENGTHS:
            good = isinstance(value, list) and all(type(item) is kind for item in value)
            good = good and _LENGTHS[name] in (None, len(value))
            value = tuple(value) if good else value
        else:
            good = type(value) is kind
        if not good:
            raise ModelError(f"The manifest's {name} cannot be {value!r}.")
        checked[name] = value
    return checked


def fingerprint(
    ids: Sequence[int | str],
    labels: Sequence[int | str],
    recipe: Recipe,
    architecture: str,
    classes: Sequence[str],
) -> str:
    """A hash of everything that determines what a training learns, except the images' order.

    Args:
        ids: one per image.
        labels: one per image, in the same order.
        recipe: the recipe of the training.
        architecture: the network's name.
        classes: its classes in order.

    Returns:
        64 hexadecimal digits, the same in every process and on every machine.
    """
    pairs = sorted((str(id_), str(label)) for id_, label in zip(ids, labels, strict=True))
    content = [FORMAT, pairs, recipe.to_dict(), architecture, list(classes)]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
