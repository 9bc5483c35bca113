"""A task network: what the loop needs of any network, whatever its task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from cdal.models import checkpoint
from cdal.models.data import Dataset, PreparedImages
from cdal.models.errors import ModelError
from cdal.models.manifest import Manifest
from cdal.models.recipe import Recipe
from cdal.models.reports import FitProgress, FitReport, Metrics
from cdal.models.training import train as train_network

Objective = Callable[[Tensor, Tensor], Tensor]
"""The loss of a batch: images (B, 3, S, S) float32 in [0, 255] and targets in, a scalar out."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network says of B images, on its device.

    What every task has is here: one vector of class probabilities and one of features an image.
    A task that finds several regions in an image derives its own class from this one and adds
    them.

    Attributes:
        probabilities: (B, C) float32, rows sum to 1.
        features: what the last layer sees, (B, D) float32.
    """

    probabilities: Tensor
    features: Tensor

    def __len__(self) -> int:
        return len(self.probabilities)


class TaskNetwork(ABC):
    """A network for one task, with its classes and image size, on one device.

    A network may be used from several threads to prepare and predict, but not while it is
    trained.
    """

    task: ClassVar[str]

    def __init__(self, manifest: Manifest, module: nn.Module, device: torch.device) -> None:
        self.manifest = manifest
        self.device = device
        # The layout that convolutions run fastest in: nearly twice on CPU for mobilenet_v3.
        self.module = module.to(device).to(memory_format=torch.channels_last).eval()
        self._mean = torch.tensor(manifest.mean, device=device).view(3, 1, 1) * 255
        self._std = torch.tensor(manifest.std, device=device).view(3, 1, 1) * 255

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the C classes, in the order of the probabilities."""
        return self.manifest.classes

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
        size = [self.manifest.image_size] * 2
        resized: Tensor = transforms.resize(image, size, antialias=True)
        return resized

    def read(
        self,
        data: Dataset,
        stop: Callable[[], bool],
        progress: Callable[[float], None] = lambda _: None,
    ) -> PreparedImages:
        """All images of a data set as ``prepare`` makes them; see ``PreparedImages``."""
        images = PreparedImages(data, self.prepare, self.manifest.image_size)
        images.load(progress, stop)
        return images

    def normalise(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 255], of any type, as the layers take them."""
        images = images.to(self.device, torch.float32, memory_format=torch.channels_last)
        return (images - self._mean) / self._std

    def autocast(self, enabled: bool = True) -> torch.autocast:
        """Mixed precision where the device gains by it."""
        cuda = self.device.type == "cuda"
        half = torch.bfloat16 if not cuda or torch.cuda.is_bf16_supported() else torch.float16
        return torch.autocast(self.device.type, dtype=half, enabled=enabled and cuda)

    @abstractmethod
    def predict(self, batch: Tensor) -> Prediction:
        """What the network says of prepared images, (B, 3, S, S) uint8, on any device."""

    @abstractmethod
    def evaluate(self, data: Dataset, stop: Callable[[], bool] = lambda: False) -> Metrics:
        """Measure the network on labelled images.

        Raises:
            ModelError: there are none, or one has a class that the network does not have.
            Stopped: ``stop`` said so.
        """

    @abstractmethod
    def objective(self, targets: Tensor, recipe: Recipe) -> Objective:
        """The loss to train with, given the targets of all training images."""

    def fit(
        self,
        train: Dataset,
        held_out: Dataset | None,
        recipe: Recipe,
        progress: Callable[[FitProgress], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> FitReport:
        """Train the network from the weights it has.

        Args:
            train: what to learn from.
            held_out: what to measure on after each epoch; the weights of the best epoch are kept.
                With None or no images, it trains to the end and keeps the last.
            recipe: how.
            progress: told after each epoch, and every second.
            stop: asked before each step.

        Raises:
            ModelError: there is nothing to learn from, or the loss became infinite.
            Stopped: ``stop`` said so; the weights are those of that moment.
        """
        return train_network(self, train, held_out, recipe, progress, stop)

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

    @staticmethod
    def load(
        folder: Path, device: torch.device, classes: Sequence[str] | None = None
    ) -> TaskNetwork:
        """The network that ``save`` wrote.

        Args:
            folder: with weights.safetensors and manifest.json.
            device: where it shall run.
            classes: those it shall have, None: as saved. What was learnt of a class is kept by
                its name; a class that is new starts from fresh weights.

        Raises:
            ModelError: a file is missing or damaged, or weights and manifest don't fit.
        """
        from cdal.models.factory import load_network  # which needs this class

        return load_network(folder, device, classes)
