"""What a network says of a batch of images, on its device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cdal.models.findings import Finding

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
