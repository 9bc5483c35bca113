"""What networks say about images, and what they learn to say: predictions, findings and targets.

A *prediction* is a network's output for a batch, on its device. A *finding* is the part of it that
is kept per image, on the CPU. A *target* is the correct answer for one image, as one tensor:

- Classification: the index of its class, () int64; or the share of each class, (C,) float32, where
  people do not agree.
- Multi-label classification: whether the image has each class, from 0 to 1, (C,) float32.
- Segmentation: the index of each pixel's class, (H, W) uint8; ``IGNORED`` pixels do not count. For
  a network that learns objects, (2, H, W) int16: the class of each pixel, and the number of the
  object that it belongs to, counted from 1; 0 outside of objects.
- Detection: one row per box, (K, 5) float32: left, top, right and bottom in pixels, and the index
  of its class. An image without boxes, K = 0, is a negative example. Where boxes are rotated,
  (K, 7): these are of the hull, and the two numbers of its turn follow, see detection/turned.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

IGNORED = 255
"""The class index of a pixel whose class is unknown."""

BACKGROUND = "(background)"
"""The class of a segmentation network for everything that has none of the project's labels."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The most probable class of an image.

    Attributes:
        label: its index among the network's classes.
        confidence: its probability.
    """

    label: int
    confidence: float


CHOSEN = 0.5
"""The probability from which on an image is said to have a class that is independent of others."""


@dataclass(frozen=True, slots=True, eq=False)
class Multilabel:
    """Whether an image has each class, independently of the others.

    Attributes:
        probabilities: of each of the network's classes, (C,) float32.
    """

    probabilities: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The boxes of K objects, the most confident first.

    Attributes:
        boxes: left, top, right and bottom as shares of the image's width and height, (K, 4)
            float32 in [0, 1]; of a rotated box, its hull.
        labels: class indices, (K,) int64.
        confidences: (K,) float32.
        turns: how the boxes lie in their hulls, (K, 2) float32, see detection/turned.py; None if
            none is rotated.
    """

    boxes: Tensor
    labels: Tensor
    confidences: Tensor
    turns: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The class of every pixel.

    Attributes:
        labels: index of the most probable class, (S, S) uint8, where S is the side at which the
            network saw the image: a finer map would only be smoother.
        confidences: the probability of the most probable class, (h, w) float32, at the network's
            own stride.
        objects: the number of the object that each pixel belongs to, (S, S) uint8, counted from 1;
            0 outside of objects. None if the network does not tell objects of a class apart.
    """

    labels: Tensor
    confidences: Tensor
    objects: Tensor | None = None


Finding = Classification | Multilabel | Detections | Segmentation

Regions = Tensor | Sequence[Tensor]
"""The class vectors of the regions of B images: probabilities (B, C) where the image is the region,
logits (B, C, h, w) where each pixel is one, and for boxes probabilities (K, C) per image. Those of
a multi-label classification, (B, C), do not sum to 1."""


@dataclass(frozen=True, slots=True)
class Prediction(ABC):
    """What a network says about B images, whatever its task.

    Attributes:
        regions: what Contextual Diversity is computed from; see ``Regions``.
        features: one vector per image, (B, D) float32.
    """

    regions: Regions
    features: Tensor

    def __len__(self) -> int:
        return len(self.features)

    @abstractmethod
    def findings(self) -> list[Finding]:
        """The findings of each image, on the CPU, independent of the image's own size."""
