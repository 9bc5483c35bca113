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
