"""What every network that can be chosen by name says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """An entry of a task's table of networks.

    Attributes:
        backbone: the network of torchvision whose ImageNet weights it may start from; None where
            torchvision has none.
        image_size: the only side S that its images may have; None where any multiple of 32 will do.
        learning_rate: AdamW's at its peak from scratch, where it is not the task's.
    """

    backbone: str | None = None
    image_size: int | None = None
    learning_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    """One task's defaults, measured as docs/training.md says.

    Attributes:
        learning_rate: AdamW's at its peak, for a network with weights drawn at random.
        fine_tuning_rate: the same, for one that starts from pretrained weights.
        label_smoothing: share of the target that is spread over all classes.
        batch_size: images in a training step, on CPU and on CUDA, where they fit.
        prediction_batch: images in a batch for prediction on CPU.
        min_epochs, max_epochs, steps: a training has about so many steps, but epochs between
            these two.
        max_side: of the network's input where none is asked for, on CPU and on CUDA.
        bytes_per_pixel: what a training step keeps for each input pixel, the most of all the
            task's networks.
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
