"""What a network says of one image, small enough to keep: an answer on the CPU, a kind a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Classification:
    """The image's most probable class.

    Attributes:
        label: its index among the network's classes.
        confidence: its probability.
    """

    label: int
    confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The boxes of K objects, the most confident first.

    Attributes:
        boxes: left, top, right, bottom as shares of the image's width and height, (K, 4) float32
            in [0, 1].
        labels: indices of classes, (K,) int64.
        confidences: (K,) float32.
    """

    boxes: Tensor
    labels: Tensor
    confidences: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The class of every pixel.

    Attributes:
        labels: index of the most probable class, (S, S) uint8 for an image that the network has
            seen at side S: a finer map would only be smoother.
        confidences: probability of that class, (h, w) float32, at the network's own stride.
    """

    labels: Tensor
    confidences: Tensor


Finding = Classification | Detections | Segmentation

Regions = Tensor | Sequence[Tensor]
"""Class vectors of the regions of B images: (B, C) probabilities where the image is the region,
(B, C, h, w) logits where a pixel is, and for boxes a (K, C) tensor of probabilities an image."""


@dataclass(frozen=True, slots=True)
class Prediction(ABC):
    """What every task's network says of B images.

    Attributes:
        regions: of which Contextual Diversity is made; see ``Regions``.
        features: one vector an image, (B, D) float32.
    """

    regions: Regions
    features: Tensor

    def __len__(self) -> int:
        return len(self.features)

    @abstractmethod
    def findings(self) -> list[Finding]:
        """What is kept of each image, on the CPU; nothing in it depends on the image's own size."""


IGNORED = 255
"""Stands for the class of a pixel of which nothing is known."""

BACKGROUND = "(background)"
"""The class of a segmentation network that stands for all that is none of the project's labels."""
