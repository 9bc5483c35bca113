"""An architecture in a task's table of networks, and the defaults of a task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """An entry in a task's table of networks.

    Attributes:
        backbone: the network whose ImageNet weights it may start from, one of torchvision or
            "timm:NAME"; None if nobody publishes any.
        image_size: the only image side S it accepts; None if any multiple of 32 will do.
        learning_rate: AdamW's peak learning rate from scratch; None: the task's.
        fine_tuning_rate: the same from pretrained weights.
    """

    backbone: str | None = None
    image_size: int | None = None
    learning_rate: float | None = None
    fine_tuning_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    """The defaults of a task; docs/training.md describes how they were measured.

    Attributes:
        learning_rate: AdamW's peak learning rate for randomly initialised weights.
        fine_tuning_rate: AdamW's peak learning rate for pretrained weights.
        label_smoothing: the share of the target that is spread over all classes.
        batch_size: images per training step on CPU and on CUDA, memory permitting.
        prediction_batch: images per prediction batch on CPU.
        min_epochs: the fewest epochs of a training.
        max_epochs: the most epochs of a training.
        steps: the number of training steps to aim for within these limits.
        max_side: the largest input side chosen by default, on CPU and on CUDA.
        bytes_per_pixel: memory that a training step needs per input pixel, in the task's largest
            network.
    """

    learning_rate: float
    fine_tuning_rate: float
    label_smoothing: float
    batch_size: tuple[int, int]
    prediction_batch: int
    min_epochs: int
    max_epochs: int
    steps: int
    max_side: tuple[int, int]
    bytes_per_pixel: int
