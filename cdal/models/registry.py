"""The registry of networks: create them by name, and load them from folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from cdal.models import checkpoint
from cdal.models.architecture import Architecture
from cdal.models.backbone import (
    Backbone,
    check_backbone,
    default_backbone,
    is_backbone,
    open_backbone,
)
from cdal.models.classification.architectures import CLASSIFIERS, SMALL_IMAGE
from cdal.models.classification.head import ClassificationHead
from cdal.models.classification.network import ClassificationNetwork
from cdal.models.detection.architectures import DETECTORS
from cdal.models.detection.head import DetectionHead
from cdal.models.detection.network import DetectionNetwork
from cdal.models.devices import choose_image_size
from cdal.models.errors import ModelError
from cdal.models.manifest import IMAGENET_MEAN, IMAGENET_STD, Manifest
from cdal.models.multilabel.head import MultilabelHead
from cdal.models.multilabel.network import MultilabelNetwork
from cdal.models.network import TaskNetwork
from cdal.models.pretrained import (
    Pretrained,
    has_weights_of,
    pretrained_weights,
    read_weights_file,
)
from cdal.models.segmentation.architectures import MASK_RCNN, SEGMENTERS
from cdal.models.segmentation.head import SegmentationHead
from cdal.models.segmentation.instances import InstanceNetwork
from cdal.models.segmentation.network import SegmentationNetwork
from cdal.models.weight_sources import RANDOM, Origin, WeightSources, file_digest

NETWORKS: Mapping[str, type[TaskNetwork]] = {
    network.task: network
    for network in (
        ClassificationNetwork,
        MultilabelNetwork,
        SegmentationNetwork,
        DetectionNetwork,
    )
}
"""The class of networks for each task."""

HEADS: Mapping[str, type[TaskNetwork]] = {
    network.task: network
    for network in (ClassificationHead, MultilabelHead, SegmentationHead, DetectionHead)
}
"""What serves each task where the architecture is a backbone of timm, "timm:NAME"."""

OF_IMAGES = ("classification", "multilabel")
"""The tasks whose classes are of whole images, so that they need no maps of features."""

ARCHITECTURES: Mapping[str, Mapping[str, Architecture]] = {
    "classification": CLASSIFIERS,
    "multilabel": CLASSIFIERS,
    "segmentation": SEGMENTERS,
    "detection": DETECTORS,
}
"""The architectures of each task by name."""


Channels = tuple[float, ...]
"""One value per channel."""


def network_class(task: str, architecture: str) -> type[TaskNetwork]:
    """What serves a task with an architecture.

    Raises:
        ModelError: there is no such task.
    """
    _known_task(task)
    if task == "segmentation" and architecture in SEGMENTERS:
        return InstanceNetwork if SEGMENTERS[architecture].finds_objects else SegmentationNetwork
    return (HEADS if is_backbone(architecture) else NETWORKS)[task]


def default_architecture(task: str, device: torch.device, image_size: int | None = None) -> str:
    """The default architecture for full training of a task: the best of those that take minutes.

    For classification on CPU that is mobilenet_v3_small; but a mobilenet would reduce images below
    a side of 64 to a single position, and resnet18 learns more from them in the same time: see
    docs/training.md.

    Raises:
        ModelError: the task is unknown.
    """
    _known_task(task)
    on_cpu = device.type == "cpu"
    if task in OF_IMAGES and on_cpu and image_size and image_size <= SMALL_IMAGE:
        return "resnet18"
    return DEFAULT_ARCHITECTURES[task][0 if on_cpu else 1]


DEFAULT_ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "classification": ("mobilenet_v3_small", "resnet18"),
    "multilabel": ("mobilenet_v3_small", "resnet18"),
    "segmentation": ("lraspp_mobilenet_v3_large", "deeplabv3_resnet50"),
    "detection": ("ssdlite320_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large"),
}
"""The default architecture of each task, on CPU and on CUDA."""


Training = Literal["head", "full"]
"""What learns: a head on a frozen backbone, or all weights of a network."""


def choose_network(
    task: str,
    device: torch.device,
    sizes: Sequence[tuple[int, int]] = (),
    architecture: str | None = None,
    image_size: int | None = None,
    training: Training = "head",
    sources: WeightSources | None = None,
    objects: bool = False,
) -> tuple[str, int]:
    """The architecture and image side to use; each is chosen automatically unless given.

    Args:
        task: a key of ``NETWORKS``.
        device: where the network will run.
        sizes: height and width of some of the images.
        architecture: the requested architecture; None: the default.
        image_size: the requested side; None: one that suits the images and the device.
        training: what learns, if no architecture is requested, which decides it.
        sources: where published weights may come from; None: what lies on this machine.
        objects: whether objects of a class are to be told apart, which takes a Mask R-CNN. That is
            the default for full training on CUDA if its COCO weights are available.

    Raises:
        ModelError: the task or architecture is unknown, or does not accept images of this size.
    """
    _known_task(task)
    side = image_size
    if architecture is None and training == "head":
        architecture = default_backbone(device, sources)[0].record.name
    if architecture is not None and is_backbone(architecture):
        return _choose_head(task, device, architecture, side)
    if architecture is None and objects and device.type != "cpu":
        architecture = MASK_RCNN if has_weights_of(MASK_RCNN, sources or WeightSources()) else None
    if side is None:
        kind = NETWORKS[task] if architecture is None else network_class(task, architecture)
        side = choose_image_size(sizes, device, kind.defaults)
    name = architecture or default_architecture(task, device, side)
    only = known_architecture(task, name).image_size
    if only is not None and image_size not in (None, only):
        raise ModelError(f"{name} accepts only images of side {only}, not {image_size}.")
    return name, only or side


def _choose_head(
    task: str, device: torch.device, architecture: str, image_size: int | None
) -> tuple[str, int]:
    """A backbone that timm has, and the side closest to the requested one that its strides divide.

    Small images are enlarged: a backbone has learnt from images of about 224 pixels.
    """
    check_backbone(architecture)
    if image_size is None:
        return architecture, HEADS[task].defaults.max_side[0 if device.type == "cpu" else 1]
    return architecture, 32 * round(image_size / 32)


def make_network(
    task: str = "classification",
    architecture: str | None = None,
    classes: Sequence[str] = (),
    image_size: int | None = None,
    device: torch.device | None = None,
    seed: int = 0,
    pretrained: Pretrained = "auto",
    sources: WeightSources | None = None,
    weights_file: Path | None = None,
    tile: int | None = None,
) -> TaskNetwork:
    """Create an untrained network.

    Args:
        task: a key of ``NETWORKS``.
        architecture: its name; None: a head on the default backbone, or, without pretrained weights
            or with the user's own, ``default_architecture``.
        classes: the class names, in the order of the outputs.
        image_size: the side S of its input; None: the largest that suits the device.
        device: where it runs; None: the CPU.
        seed: the seed of the random weights.
        pretrained: whether to start from published weights; see ``Pretrained``.
        sources: where those may come from; None: this machine, and a download if they are required.
        weights_file: a file with weights of the user's own to start from instead.
        tile: for heads on maps: the side of the tiles, in pixels of an image, in which it is seen;
            ``image_size`` is by default the same. None: images are seen as a whole.

    Raises:
        ModelError: an argument is unknown or impossible, or the weights are unavailable or do not
            fit.
    """
    device = device or torch.device("cpu")
    published = pretrained is not False and weights_file is None
    sources = sources or WeightSources(downloads=pretrained is True)
    shortfall = ""
    if architecture is None and published:
        default, shortfall = default_backbone(device, sources)
        architecture = default.record.name
    architecture, image_size = choose_network(
        task, device, (), architecture, tile if image_size is None else image_size, "full", sources
    )
    if tile is not None and (not is_backbone(architecture) or task in OF_IMAGES):
        raise ModelError(
            f"Only heads for detection or segmentation see images in tiles, not {architecture} for "
            f"{task}."
        )
    if is_backbone(architecture):
        if not published:
            raise ModelError(
                f"A head on {architecture} needs its published weights; without them, or with your "
                "own, choose a network of torchvision."
            )
        backbone = open_backbone(architecture, device, sources)
        return _make_head(task, backbone, tuple(classes), image_size, seed, shortfall, tile)
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    if weights_file is not None:
        weights: Mapping[str, torch.Tensor] | None = read_weights_file(weights_file)
        origin = Origin(weights_file.name, str(weights_file), file_digest(weights_file))
    else:
        trained = ARCHITECTURES[task][architecture].backbone
        if published and trained is not None and is_backbone(trained):
            weights, origin, (mean, std) = _weights_of(trained, pretrained, sources)
        else:
            weights, origin = pretrained_weights(architecture, trained, pretrained, sources)
    manifest = Manifest(
        task=task,
        architecture=architecture,
        classes=tuple(classes),
        image_size=image_size,
        seed=seed,
        pretrained=weights is not None,
        mean=mean,
        std=std,
        origin=origin,
    )
    return network_class(task, architecture).make(manifest, device, weights)


def _weights_of(
    backbone: str, pretrained: Pretrained, sources: WeightSources
) -> tuple[Mapping[str, torch.Tensor] | None, Origin, tuple[Channels, Channels]]:
    """The weights of a backbone, for a network that goes on training them.

    Returns:
        The weights, None if the network starts from scratch; what that amounts to; and the mean
        and the standard deviation per channel with which its images are normalised.

    Raises:
        ModelError: they are required and not available.
    """
    try:
        opened = open_backbone(backbone, torch.device("cpu"), sources)
    except ModelError as error:
        if pretrained is True:
            raise
        return None, Origin(RANDOM, shortfall=str(error)), (IMAGENET_MEAN, IMAGENET_STD)
    record = opened.record
    origin = Origin(record.name, record.source, record.sha256)
    return opened.weights(), origin, (opened.mean, opened.std)


def _make_head(
    task: str,
    backbone: Backbone,
    classes: tuple[str, ...],
    image_size: int,
    seed: int,
    shortfall: str,
    tile: int | None,
) -> TaskNetwork:
    """An untrained head on a backbone; ``shortfall`` as in ``Origin``."""
    record = backbone.record
    if task not in OF_IMAGES and not record.channels:
        raise ModelError(f"{record.name} has no maps of features, which {task} needs.")
    manifest = Manifest(
        task=task,
        architecture=record.name,
        classes=classes,
        image_size=image_size,
        seed=seed,
        pretrained=True,
        mean=backbone.mean,
        std=backbone.std,
        backbone=record,
        tile=tile,
        origin=Origin(record.name, record.source, record.sha256, shortfall),
    )
    return HEADS[task].make(manifest, backbone.device)


def load_network(
    folder: Path,
    device: torch.device,
    classes: Sequence[str] | None = None,
    known_as: Mapping[str, Sequence[str]] | None = None,
    sources: WeightSources | None = None,
) -> TaskNetwork:
    """Load a network that ``TaskNetwork.save`` wrote.

    Args:
        folder: the folder with its weights and manifest.
        device: where it runs.
        classes: the classes it should have; None: as saved. What it has learnt about a class is
            kept by its name; new classes start from random weights.
        known_as: earlier names of the classes; see ``TaskNetwork.with_classes``.
        sources: where the backbone's weights may come from, which a head does not save; None: this
            machine.

    Raises:
        ModelError: a file is missing or damaged, or the weights do not fit the manifest.
    """
    manifest, weights = checkpoint.read(folder)
    _known_task(manifest.task)
    if manifest.backbone is None:
        known_architecture(manifest.task, manifest.architecture)
    else:
        # Held until the network holds it.
        backbone = open_backbone(manifest.architecture, device, sources, manifest.backbone.sha256)
        device = backbone.device
    network = network_class(manifest.task, manifest.architecture).restore(manifest, device, weights)
    if classes is not None and tuple(classes) != manifest.classes:
        return network.with_classes(classes, known_as)
    return network


def known_architecture(task: str, name: str) -> Architecture:
    """The entry of an architecture.

    Raises:
        ModelError: the task has no architecture of this name.
    """
    names = ARCHITECTURES[task]
    if name not in names:
        raise ModelError(f'The architecture "{name}" is not one of {", ".join(names)}.')
    return names[name]


def _known_task(task: str) -> None:
    if task not in NETWORKS:
        raise ModelError(f'The task "{task}" is not one of {", ".join(NETWORKS)}.')
