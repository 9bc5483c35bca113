"""Making networks by name and loading them from folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from cdal.models import checkpoint
from cdal.models.architectures import CLASSIFIERS, SMALL_IMAGE
from cdal.models.classification import ClassificationNetwork
from cdal.models.devices import choose_image_size
from cdal.models.errors import ModelError
from cdal.models.manifest import Manifest
from cdal.models.network import TaskNetwork
from cdal.models.pretrained import Pretrained, pretrained_weights

ARCHITECTURES: Mapping[str, Mapping[str, object]] = {"classification": CLASSIFIERS}
"""The names that can be chosen, by task."""


def default_architecture(task: str, device: torch.device, image_size: int | None = None) -> str:
    """The network for a task where none is named: the best of those that train in a minute.

    On CPU that is mobilenet_v3_small, but for images below a side of 64, which a mobilenet would
    reduce to a single position, resnet18 learns more in the same time; see docs/training.md.
    """
    _known_task(task)
    if device.type == "cpu" and (image_size is None or image_size > SMALL_IMAGE):
        return "mobilenet_v3_small"
    return "resnet18"


def make_network(
    task: str = "classification",
    architecture: str | None = None,
    classes: Sequence[str] = (),
    image_size: int | None = None,
    device: torch.device | None = None,
    seed: int = 0,
    pretrained: Pretrained = "auto",
    weights_folder: Path | None = None,
) -> TaskNetwork:
    """A network that is yet to be trained.

    Args:
        task: "classification".
        architecture: its name; None: ``default_architecture``.
        classes: their names in the order of the outputs.
        image_size: the side S of its images; None: the largest that suits the device.
        device: where it shall run; None: the CPU.
        seed: of the weights that are drawn at random.
        pretrained: whether to start from torchvision's weights; nothing is downloaded unless True.
        weights_folder: where torchvision's weight files lie; None: torch's own cache.

    Raises:
        ModelError: an argument names something that there isn't; the message says what there is.
    """
    _known_task(task)
    device = device or torch.device("cpu")
    image_size = choose_image_size([], device) if image_size is None else image_size
    architecture = architecture or default_architecture(task, device, image_size)
    _known_architecture(task, architecture)
    weights = pretrained_weights(architecture, pretrained, weights_folder)
    manifest = Manifest(
        task=task,
        architecture=architecture,
        classes=tuple(classes),
        image_size=image_size,
        seed=seed,
        pretrained=weights is not None,
    )
    return ClassificationNetwork.make(manifest, device, weights)


def load_network(
    folder: Path, device: torch.device, classes: Sequence[str] | None = None
) -> TaskNetwork:
    """See ``TaskNetwork.load``."""
    manifest, weights = checkpoint.read(folder)
    _known_task(manifest.task)
    _known_architecture(manifest.task, manifest.architecture)
    network = ClassificationNetwork.restore(manifest, device, weights)
    if classes is not None and tuple(classes) != manifest.classes:
        return network.with_classes(classes)
    return network


def _known_task(task: str) -> None:
    if task not in ARCHITECTURES:
        raise ModelError(f"The task «{task}» is not one of {', '.join(ARCHITECTURES)}.")


def _known_architecture(task: str, name: str) -> None:
    names = ARCHITECTURES[task]
    if name not in names:
        raise ModelError(f"The architecture «{name}» is not one of {', '.join(names)}.")
