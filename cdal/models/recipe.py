"""How a network is trained, as data; training.py has the loop that follows it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cdal.models.architecture import Defaults
from cdal.models.devices import training_batch_size
from cdal.models.errors import ModelError


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a training. ``None`` is replaced once the data and the device are known.

    Attributes:
        epochs: passes over the training images; None: see ``default_epochs``.
        batch_size: images per step; None: see ``training_batch_size``.
        learning_rate: AdamW's peak learning rate; None: the architecture's own or else the task's,
            which is lower if the network starts from pretrained weights.
        weight_decay: AdamW's weight decay on matrices and convolutions; biases and norms have none.
        warmup: the share of the steps during which the learning rate rises to its peak.
        label_smoothing: the share of the target that is spread over all classes; None: the task's.
        augmentation: whether to change images randomly in position, size and colour.
        class_weights: whether to weight classes by the inverse square root of their frequency.
        mixed_precision: whether to use mixed precision; None: on CUDA only.
        seed: the seed of all random choices.
    """

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.05
    warmup: float = 0.1
    label_smoothing: float | None = None
    augmentation: bool = True
    class_weights: bool = True
    mixed_precision: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ModelError(f"{name} must be positive; it is {value}.")
        for name in ("warmup", "label_smoothing"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ModelError(f"{name} must lie in [0, 1]; it is {value}.")
        if not self.weight_decay >= 0:
            raise ModelError(f"weight_decay must not be negative; it is {self.weight_decay}.")

    def plan(
        self,
        images: int,
        device: torch.device,
        image_size: int,
        pretrained: bool,
        defaults: Defaults,
    ) -> Plan:
        """This recipe with every value settled for a data set, a device and a network."""
        batch_size = self.batch_size or training_batch_size(device, image_size, defaults)
        epochs = self.epochs or default_epochs(images, batch_size, defaults)
        peak = defaults.fine_tuning_rate if pretrained else defaults.learning_rate
        mixed = device.type == "cuda" if self.mixed_precision is None else self.mixed_precision
        steps = math.ceil(images / batch_size)
        if batch_size > 1:  # batch normalisation cannot train on a single image
            steps = min(steps, max(1, images // 2))
        return Plan(
            epochs=epochs,
            batch_size=batch_size,
            steps_per_epoch=steps,
            learning_rate=self.learning_rate or peak,
            mixed_precision=mixed,
        )

    def smoothing(self, defaults: Defaults) -> float:
        """The label smoothing; the task's own unless the recipe sets it."""
        return defaults.label_smoothing if self.label_smoothing is None else self.label_smoothing

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe with every value settled; for the fields see ``Recipe``."""

    epochs: int
    batch_size: int
    steps_per_epoch: int
    learning_rate: float
    mixed_precision: bool

    @property
    def steps(self) -> int:
        """The number of optimiser steps in the whole training."""
        return self.epochs * self.steps_per_epoch


def default_epochs(images: int, batch_size: int, defaults: Defaults) -> int:
    """The number of epochs for this many images.

    A network needs a certain number of steps: a small data set needs many epochs to provide them,
    a large one needs few.
    """
    steps_per_epoch = math.ceil(images / batch_size)
    epochs = round(defaults.steps / steps_per_epoch)
    return max(defaults.min_epochs, min(defaults.max_epochs, epochs))


def learning_rate_share(step: int, steps: int, warmup: float) -> float:
    """The learning rate at a step, relative to its peak: a linear rise, then half a cosine to 0."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def class_weights(counts: Tensor, power: float = 0.5) -> Tensor:
    """The weight of each class in the loss, (C,) float32: ``counts ** -power``, normalised.

    With the inverse frequency (power 1), three images of a rare class count as much as a hundred of
    a frequent one, and the network predicts the rare class too often; without weights it never
    does. The inverse root lies between them; docs/training.md has figures.

    Args:
        counts: how often each class occurs, (C,).
        power: 0 gives each example the same weight, 1 each class.

    Returns:
        Weights whose mean over all counted examples is 1. A class that never occurs has weight 0,
        so that label smoothing does not teach it either.
    """
    weights = torch.where(counts > 0, counts.double().clamp(min=1) ** -power, 0)
    return (weights * counts.sum() / (weights * counts).sum()).float()
