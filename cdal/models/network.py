"""A task network: what the loop needs of any network, whatever its task."""

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
from cdal.models.data import Dataset, Example, PreparedImages
from cdal.models.devices import free_memory, prediction_batch_size, seeded
from cdal.models.errors import ModelError
from cdal.models.manifest import Manifest
from cdal.models.predictions import Prediction
from cdal.models.pretrained import adopt
from cdal.models.recipe import Recipe
from cdal.models.reports import Metrics

Objective = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""The loss of a batch: images (B, 3, S, S) float32 in [0, 255] and targets in, a scalar out."""


class TaskNetwork(ABC):
    """A network for one task, with its classes and image size, on one device.

    A network may be used from several threads to prepare and predict, but not while it is
    trained.

    Attributes:
        task: what it is for.
        main_metric: the one of its metrics by which models are compared; more is better.
        defaults: of its training and prediction.
    """

    task: ClassVar[str]
    main_metric: ClassVar[str]
    defaults: ClassVar[Defaults]

    def __init__(self, manifest: Manifest, module: nn.Module, device: torch.device) -> None:
        self.manifest = manifest
        self.device = device
        self._halved = 0
        # The layout that convolutions run fastest in: nearly twice on CPU for mobilenet_v3.
        self.module = module.to(device).to(memory_format=torch.channels_last).eval()
        self._mean = torch.tensor(manifest.mean, device=device).view(3, 1, 1) * 255
        self._std = torch.tensor(manifest.std, device=device).view(3, 1, 1) * 255

    @classmethod
    def make(
        cls, manifest: Manifest, device: torch.device, weights: Mapping[str, Tensor] | None = None
    ) -> Self:
        """A network with weights as its authors initialise them, drawn by the manifest's seed.

        Args:
            manifest: what to make.
            device: where it shall run.
            weights: from other networks, by name; those of the same name and shape are taken.

        Raises:
            ModelError: less than half of the network can be taken from the weights, or the classes
                are too few or too many.
        """
        module = cls.layers(manifest, weights)
        if weights is not None:
            adopt(module, weights, manifest.architecture)
        return cls(manifest, module, device)

    @classmethod
    def restore(
        cls, manifest: Manifest, device: torch.device, weights: Mapping[str, Tensor]
    ) -> Self:
        """A saved network.

        Raises:
            ModelError: the weights don't fit the manifest.
        """
        module = cls.layers(manifest, weights)
        checkpoint.fill(module, weights)
        return cls(manifest, module, device)

    @classmethod
    def layers(cls, manifest: Manifest, weights: Mapping[str, Tensor] | None) -> nn.Module:
        """See ``build``; random weights are drawn by the manifest's seed."""
        with seeded(manifest.seed, torch.device("cpu")):
            return cls.build(manifest, weights)

    @classmethod
    @abstractmethod
    def build(cls, manifest: Manifest, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The layers of the manifest's architecture, for its classes and image size.

        Args:
            manifest: what to build.
            weights: what the layers shall take, by any names. Some networks have other layers
                where they start from scratch; then those are built that the weights are of.

        Raises:
            ModelError: it can learn nothing of so few classes, or is not made for so many.
        """

    @property
    @abstractmethod
    def entry(self) -> Architecture:
        """What the task's table of networks says of this one."""

    @abstractmethod
    def class_rows(self) -> Mapping[str, ClassRows]:
        """Which tensors of the module's state have rows for the classes, by name."""

    def with_classes(
        self, classes: Sequence[str], known_as: Mapping[str, Sequence[str]] | None = None
    ) -> Self:
        """This network for other classes; what it knows of a class is kept by its name.

        Args:
            classes: the new ones in order.
            known_as: for a new class, the names that it may have here; the first one that is here,
                and is not among the new classes itself, counts.
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
        """The side S of the images that the layers take."""
        return self.manifest.image_size

    @property
    def prediction_batch_size(self) -> int:
        """Images in a batch for prediction."""
        size = prediction_batch_size(self.device, self.image_size, self.defaults)
        return max(1, size >> self._halved)

    def halve_batches(self) -> None:
        """Predict in smaller batches from now on: another process needs the device's memory."""
        self._halved += 1
        free_memory()

    def prepare(self, image: Tensor) -> Tensor:
        """Resize an image to the network's size, whatever its shape, so that nothing is cut off.

        Args:
            image: (3, H, W) uint8.

        Returns:
            (3, S, S) uint8.

        Raises:
            ModelError: it is not such an image.
        """
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise ModelError(
                f"An image must be uint8 of shape (3, H, W), not {image.dtype} of shape "
                f"{tuple(image.shape)}."
            )
        if 0 in image.shape:
            raise ModelError("An image must not be empty.")
        resized: Tensor = transforms.resize(image, [self.image_size] * 2, antialias=True)
        return resized

    def prepare_example(self, image: Tensor, target: Tensor) -> Example:
        """An image as ``prepare`` makes it, and its target made to fit.

        Raises:
            ModelError: the image or the target has the wrong type or shape; see predictions.py.
        """
        return self.prepare(image), self.prepare_target(target, image.shape[1], image.shape[2])

    @abstractmethod
    def prepare_target(self, target: Tensor, height: int, width: int) -> Tensor:
        """The target of an image of this height and width, for the image as prepared.

        Raises:
            ModelError: it is no target of this task, or has a class that the network has not.
        """

    @abstractmethod
    def count_classes(self, target: Tensor) -> Tensor:
        """How often each class occurs in a prepared target (images, pixels or boxes), (C,)."""

    @abstractmethod
    def augment(
        self, images: Tensor, targets: Sequence[Tensor], draws: Generator
    ) -> tuple[Tensor, list[Tensor]]:
        """Change training images at random, each in its own way, and their targets with them.

        Args:
            images: (B, 3, S, S) uint8, prepared, on any device.
            targets: prepared.
            draws: on the CPU, so that the draws are the same on every device.

        Returns:
            Images (B, 3, S, S) float32 in [0, 255], on the same device, and targets.
        """

    def read(
        self,
        data: Dataset,
        stop: Callable[[], bool],
        progress: Callable[[float], None] = lambda _: None,
    ) -> PreparedImages:
        """All images of a data set as ``prepare`` makes them, if they are not so already."""
        if isinstance(data, PreparedImages):
            return data
        images = PreparedImages(data, self)
        images.load(progress, stop)
        return images

    def normalise(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 255], of any type, as the layers take them."""
        images = images.to(self.device, torch.float32, memory_format=torch.channels_last)
        return (images - self._mean) / self._std

    def autocast(self, enabled: bool = True) -> torch.autocast:
        """Mixed precision where the device gains by it."""
        cuda = self.device.type == "cuda"
        # Where bfloat16 is only emulated, as before Ampere, float16 is what the device is made for.
        native = not cuda or torch.cuda.is_bf16_supported(including_emulation=False)
        half = torch.bfloat16 if native else torch.float16
        return torch.autocast(self.device.type, dtype=half, enabled=enabled and cuda)

    @abstractmethod
    def predict(self, batch: Tensor) -> Prediction:
        """What the network says of prepared images, (B, 3, S, S) uint8, on any device."""

    def evaluate(self, data: Dataset, stop: Callable[[], bool] = lambda: False) -> Metrics:
        """Measure the network on labelled images.

        Where the device's memory is full, it begins anew in smaller batches.

        Raises:
            ModelError: there are none, or one has a class that the network does not have.
            Stopped: ``stop`` said so.
        """
        if len(data) == 0:
            raise ModelError("There are no labelled images to measure the network on.")
        images = self.read(data, stop)
        while True:
            try:
                return self.measure(images, stop)
            except torch.OutOfMemoryError:
                if self.prediction_batch_size == 1:
                    raise
            self.halve_batches()

    @abstractmethod
    def measure(self, images: PreparedImages, stop: Callable[[], bool]) -> Metrics:
        """See ``evaluate``; there is at least one image."""

    @abstractmethod
    def objective(self, class_counts: Tensor, recipe: Recipe) -> Objective:
        """The loss to train with.

        Args:
            class_counts: how often each class occurs in the training targets, (C,) float64.
            recipe: with nothing left open that the loss needs.
        """

    def save(self, folder: Path, data_fingerprint: str | None = None) -> None:
        """Write weights.safetensors and manifest.json to a new folder, all or nothing.

        Args:
            folder: must not exist.
            data_fingerprint: of what the network was trained on; None: as it was.

        Raises:
            ModelError: the folder exists.
        """
        if data_fingerprint is not None:
            self.manifest = replace(self.manifest, data_fingerprint=data_fingerprint)
        checkpoint.write(folder, self.manifest, self.module.state_dict())
