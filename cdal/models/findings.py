"""What a network says of one image, small enough to keep: an answer on the CPU, a kind a task."""

from __future__ import annotations

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
