"""A task network: the interface that all networks share, whatever their task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from cdal.models import checkpoint
from cdal.models.architecture import Architecture, Defaults
from cdal.models.class_rows import ClassRows, carry_over, class_origins
from cdal.models.data import Dataset, Example, Examples, PreparedImages
from cdal.models.devices import free_memory, prediction_batch_size, seeded
from cdal.models.errors import ModelError
from cdal.models.features import LabelledFeatures
from cdal.models.manifest import Manifest
from cdal.models.predictions import Prediction
from cdal.models.pretrained import adopt
from cdal.models.recipe import Recipe
from cdal.models.reports import Metrics

Objective = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""The scalar loss of a batch: images (B, 3, S, S) float32 in [0, 255], and their targets."""


class TaskNetwork(ABC):
    """A network for one task, with its classes and image size, on one device.

    Several threads may prepare images and predict at the same time, but not during training.

    Attributes:
        task: "classification", "multilabel", "segmentation" or "detection".
        main_metric: the metric by which models are compared; higher is better.
        defaults: the task's defaults for training and prediction.
        manifest: the description that is saved with its weights.
        device: where it runs.
        module: its layers.
    """

    task: ClassVar[str]
    main_metric: ClassVar[str]
    defaults: ClassVar[Defaults]

    def __init__(self, manifest: Manifest, module: nn.Module, device: torch.device) -> None:
        self.manifest = manifest
        self.device = device
        self._halved = 0
        # The fastest memory layout for convolutions: nearly twice as fast for mobilenet_v3 on CPU.
        self.module = module.to(device).to(memory_format=torch.channels_last).eval()
        self._mean = torch.tensor(manifest.mean, device=device).view(3, 1, 1) * 255
        self._std = torch.tensor(manifest.std, device=device).view(3, 1, 1) * 255

    @classmethod
    def make(
        cls, manifest: Manifest, device: torch.device, weights: Mapping[str, Tensor] | None = None
    ) -> Self:
        """A new network, initialised as its authors do, with the manifest's seed.

        Args:
            manifest: the description of the network.
            device: where it runs.
            weights: pretrained weights by name; those that match by name and shape replace the
                random ones.

        Raises:
            ModelError: the weights cover less than half of the network, or there are too few or too
                many classes.
        """
        module = cls.layers(manifest, weights)
        if weights is not None:
            adopt(module, weights, manifest.architecture)
        return cls(manifest, module, device)

    @classmethod
    def restore(
        cls, manifest: Manifest, device: torch.device, weights: Mapping[str, Tensor]
    ) -> Self:
        """A saved network, given its manifest and all of its weights.

        Raises:
            ModelError: the weights do not fit the manifest.
        """
        module = cls.layers(manifest, weights)
        checkpoint.fill(module, weights)
        return cls(manifest, module, device)

    @classmethod
    def layers(cls, manifest: Manifest, weights: Mapping[str, Tensor] | None) -> nn.Module:
        """Call ``build`` with the random number generators seeded as the manifest says."""
        with seeded(manifest.seed, torch.device("cpu")):
            return cls.build(manifest, weights)

    @classmethod
    @abstractmethod
    def build(cls, manifest: Manifest, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The layers of the manifest's architecture, for its classes and image size.

        Args:
            manifest: the description of the network.
            weights: weights that will be loaded into the layers, under any names. Some networks
                have different layers when they start from scratch; given weights, the layers that
                these weights belong to are built.

        Raises:
            ModelError: there are too few classes to learn anything, or too many for this task.
        """

    @property
    @abstractmethod
    def entry(self) -> Architecture:
        """This network's entry in the task's table of networks."""

    @abstractmethod
    def class_rows(self) -> Mapping[str, ClassRows]:
        """Where each tensor of the module's state has rows for classes, by the tensor's name."""

    def with_classes(
        self, classes: Sequence[str], known_as: Mapping[str, Sequence[str]] | None = None
    ) -> Self:
        """This network for other classes; what it has learnt about a class is kept by its name.

        Args:
            classes: the new classes in order.
            known_as: the earlier names of a new class. If this network does not have the class
                itself, the first earlier name that it has, and that is not a new class, is used.
        """
        manifest = replace(self.manifest, classes=tuple(classes))
        old = self.module.state_dict()
        fresh = self.layers(manifest, old)
        origins = class_origins(self.classes, classes, known_as or {})
        with torch.no_grad():
            for name, tensor in fresh.state_dict().items():
                rows = self.class_rows().get(name)
                if rows is None:
                    tensor.copy_(old[name])
                else:
                    carry_over(old[name].to(tensor), tensor, rows, origins)
        return type(self)(manifest, fresh, self.device)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the C classes, in the order of the probabilities."""
        return self.manifest.classes

    @property
    def image_size(self) -> int:
        """The side S, in pixels, of the layers' input."""
        return self.manifest.image_size

    @property
    def prediction_batch_size(self) -> int:
        """The number of images per prediction batch."""
        size = prediction_batch_size(self.device, self.image_size, self.defaults)
        return max(1, size >> self._halved)

    def halve_batches(self) -> None:
        """Halve the prediction batch size from now on, because the device's memory is full."""
        self._halved += 1
        free_memory()

    learns_turns: ClassVar[bool] = False
    """Whether it learns rotated boxes as such."""

    learns_objects: ClassVar[bool] = False
    """Whether it learns which pixels are of the same object, and not only of the same class."""

    def seen_size(self, height: int, width: int) -> tuple[int, int]:  # noqa: ARG002
        """The rows and columns at which the network sees an image of this height and width."""
        return self.image_size, self.image_size

    def prepare(self, image: Tensor) -> Tensor:
        """Resize an image to the network's input size without cropping, whatever its shape.

        Args:
            image: (3, H, W) uint8.

        Returns:
            (3, S, S) uint8.

        Raises:
            ModelError: the image has another type or shape, or is empty.
        """
        check_image(image)
        resized: Tensor = transforms.resize(image, [self.image_size] * 2, antialias=True)
        return resized

    def prepare_example(self, image: Tensor, target: Tensor) -> Example:
        """A prepared image and its target, adjusted to match.

        Raises:
            ModelError: the image or the target has the wrong type or shape; see predictions.py.
        """
        return self.prepare(image), self.prepare_target(target, image.shape[1], image.shape[2])

    @abstractmethod
    def prepare_target(self, target: Tensor, height: int, width: int) -> Tensor:
        """Adjust the target of an image of this height and width to the prepared image.

        Raises:
            ModelError: the target does not suit the task, or has a class that the network lacks.
        """

    @abstractmethod
    def count_classes(self, target: Tensor) -> Tensor:
        """The number of images, pixels or boxes of each class in a prepared target, (C,)."""

    @abstractmethod
    def augment(
        self, images: Tensor, targets: Sequence[Tensor], draws: Generator
    ) -> tuple[Tensor, list[Tensor]]:
        """Randomly change training images, each on its own, and their targets accordingly.

        Args:
            images: prepared images, (B, 3, S, S) uint8, on any device.
            targets: their prepared targets.
            draws: a CPU generator, so that the draws are the same on every device.

        Returns:
            Images (B, 3, S, S) float32 in [0, 255] on the same device, and their targets.
        """

    def read(
        self,
        data: Dataset,
        stop: Callable[[], bool],
        progress: Callable[[float], None] = lambda _: None,
    ) -> PreparedImages:
        """Prepare all images of a data set, unless it is prepared already.

        Raises:
            ModelError: an image or target is invalid.
            Stopped: ``stop`` returned True.
        """
        if isinstance(data, PreparedImages):
            return data
        images = PreparedImages(data, self)
        images.load(progress, stop)
        return images

    def examples(self, data: Dataset | LabelledFeatures, stop: Callable[[], bool]) -> Examples:
        """Labelled images as ``measure`` takes them.

        Raises:
            ModelError: an image or target is invalid, or features are given that this network does
                not take.
            Stopped: ``stop`` returned True.
        """
        if isinstance(data, LabelledFeatures):
            raise ModelError(
                f"{self.manifest.architecture} takes no features of {data.extraction}."
            )
        return self.read(data, stop)

    def normalise(self, images: Tensor) -> Tensor:
        """Convert images (B, 3, S, S) in [0, 255], of any type, to the layers' input."""
        images = images.to(self.device, torch.float32, memory_format=torch.channels_last)
        return (images - self._mean) / self._std

    def autocast(self, enabled: bool = True) -> torch.autocast:
        """Mixed precision if enabled and faster on this device."""
        cuda = self.device.type == "cuda"
        # GPUs before Ampere only emulate bfloat16 but support float16.
        native = not cuda or torch.cuda.is_bf16_supported(including_emulation=False)
        half = torch.bfloat16 if native else torch.float16
        return torch.autocast(self.device.type, dtype=half, enabled=enabled and cuda)

    @abstractmethod
    def predict(self, batch: Tensor) -> Prediction:
        """Predict for prepared images, (B, 3, S, S) uint8, on any device."""

    def evaluate(
        self, data: Dataset | LabelledFeatures, stop: Callable[[], bool] = lambda: False
    ) -> Metrics:
        """Measure the network on labelled images.

        If the device runs out of memory, it starts again with smaller batches.

        Raises:
            ModelError: there are no images, or one has a class that the network lacks.
            Stopped: ``stop`` returned True.
        """
        if len(data) == 0:
            raise ModelError("There are no labelled images to measure the network on.")
        images = self.examples(data, stop)
        while True:
            try:
                return self.measure(images, stop)
            except torch.OutOfMemoryError:
                if self.prediction_batch_size == 1:
                    raise
            self.halve_batches()

    @abstractmethod
    def measure(self, images: Examples, stop: Callable[[], bool]) -> Metrics:
        """Measure the network on at least one image.

        Raises:
            torch.OutOfMemoryError: a batch does not fit into the device's memory.
            Stopped: ``stop`` returned True.
        """

    @abstractmethod
    def objective(self, class_counts: Tensor, recipe: Recipe) -> Objective:
        """The loss function to train with.

        Args:
            class_counts: how often each class occurs in the training targets, (C,) float64.
            recipe: the recipe of the training.
        """

    def save(self, folder: Path, data_fingerprint: str | None = None) -> None:
        """Save weights and manifest to a new folder, completely or not at all.

        Args:
            folder: a folder that does not exist yet.
            data_fingerprint: the fingerprint of the training; None: keep the manifest's.

        Raises:
            ModelError: the folder already exists.
        """
        if data_fingerprint is not None:
            self.manifest = replace(self.manifest, data_fingerprint=data_fingerprint)
        checkpoint.write(folder, self.manifest, self.module.state_dict())


def check_image(image: Tensor) -> None:
    """Check that an image is (3, H, W) uint8.

    Raises:
        ModelError: it is not.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise ModelError(
            f"An image must be uint8 of shape (3, H, W), not {image.dtype} of shape "
            f"{tuple(image.shape)}."
        )
    if 0 in image.shape:
        raise ModelError("An image must not be empty.")
