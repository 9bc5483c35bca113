"""How a network is trained, as data. The loop that follows it is in training.py."""

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
    """The settings of a training. ``None`` means: chosen when the data and the device are known.

    Attributes:
        epochs: passes over the training images; None: see ``default_epochs``.
        batch_size: images in a step; None: see ``training_batch_size``.
        learning_rate: AdamW's at its peak; None: the architecture's own or else the task's, which
            is lower for a network that starts from pretrained weights.
        weight_decay: AdamW's, on matrices and convolutions, not on biases and norms.
        warmup: share of the steps in which the learning rate rises to its peak.
        label_smoothing: share of the target that is spread over all classes; None: the task's.
        augmentation: random changes of place, size and colour, as suits the task.
        class_weights: give rare classes more say in the loss, by the inverse root of their number.
        mixed_precision: None: on CUDA only.
        seed: fixes every random choice.
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
        """The numbers that this recipe comes to for a data set, a device and a network."""
        batch_size = self.batch_size or training_batch_size(device, image_size, defaults)
        epochs = self.epochs or default_epochs(images, batch_size, defaults)
        peak = defaults.fine_tuning_rate if pretrained else defaults.learning_rate
        mixed = device.type == "cuda" if self.mixed_precision is None else self.mixed_precision
        steps = math.ceil(images / batch_size)
        if batch_size > 1:  # no batch of one image, with which batch normalisation can do nothing
            steps = min(steps, max(1, images // 2))
        return Plan(
            epochs=epochs,
            batch_size=batch_size,
            steps_per_epoch=steps,
            learning_rate=self.learning_rate or peak,
            mixed_precision=mixed,
        )

    def smoothing(self, defaults: Defaults) -> float:
        """The label smoothing, the task's own where none is asked for."""
        return defaults.label_smoothing if self.label_smoothing is None else self.label_smoothing

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe with nothing left open; the fields are those of ``Recipe``."""

    epochs: int
    batch_size: int
    steps_per_epoch: int
    learning_rate: float
    mixed_precision: bool

    @property
    def steps(self) -> int:
        """Of the optimiser."""
        return self.epochs * self.steps_per_epoch


def default_epochs(images: int, batch_size: int, defaults: Defaults) -> int:
    """Epochs for a set of this size.

    A small set needs many epochs, since what a network needs to learn is steps; a large one has
    enough steps in few epochs.
    """
    steps_per_epoch = math.ceil(images / batch_size)
    epochs = round(defaults.steps / steps_per_epoch)
    return max(defaults.min_epochs, min(defaults.max_epochs, epochs))


def learning_rate_share(step: int, steps: int, warmup: float) -> float:
    """The share of the peak learning rate at a step: a linear rise, then half a cosine to zero."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def class_weights(counts: Tensor, power: float = 0.5) -> Tensor:
    """The weight of each class, (C,) float32: falls with a power of how often it occurs.

    By the inverse, each of three images of a rare class counts as much as a hundred of a frequent
    one, and the network comes to see little else; without weights it does not see the rare class.
    Between them lies the root; docs/training.md has figures.

    Args:
        counts: how often each class occurs, (C,).
        power: 0 weighs all alike, 1 gives every class the same say.

    Returns:
        A class that never occurs has weight 0, so that label smoothing does not teach it either;
        over all that is counted the mean weight is 1.
    """
    weights = torch.where(counts > 0, counts.double().clamp(min=1) ** -power, 0)
    return (weights * counts.sum() / (weights * counts).sum()).float()
