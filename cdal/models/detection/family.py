"""A family of torchvision's detectors: what the table of detectors needs of each.

A detector is run in its parts, once an image: the boxes before non-maximum suppression, of which
Contextual Diversity is made, and those after it come of one forward pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from cdal.models.class_rows import ClassRows
from cdal.models.detection.regions import BoxCandidates
from cdal.models.manifest import Manifest

Model = Any
"""A detector of torchvision, which declares no types for its parts."""

MIN_SCORE = 0.05
"""A box below this score is not found."""

MAX_BOXES = 100
"""Boxes that are kept of an image at most, as in COCO's metric."""


@dataclass(frozen=True, slots=True, eq=False)
class Detected:
    """What a detector says of B images.

    Attributes:
        candidates: the most confident boxes before non-maximum suppression.
        features: (B, D) float32.
        boxes: left, top, right, bottom in pixels after it, a (K, 4) tensor an image.
        labels: indices of classes, (K,) int64 an image.
        scores: (K,) float32 an image, descending.
    """

    candidates: BoxCandidates
    features: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    scores: list[Tensor]

    @classmethod
    def of(
        cls,
        candidates: BoxCandidates,
        deepest: Tensor,
        found: list[dict[str, Tensor]],
        background: int,
    ) -> Self:
        """Collect what the parts of a detector return.

        Args:
            candidates: the boxes before non-maximum suppression.
            deepest: the feature map (B, D, h, w) whose mean is the image's feature vector.
            found: "boxes", "labels" and "scores" of each image after non-maximum suppression.
            background: the number of classes that precede the project's own.
        """
        return cls(
            candidates=candidates,
            features=deepest.float().mean((2, 3)),
            boxes=[image["boxes"].float() for image in found],
            labels=[image["labels"] - background for image in found],
            scores=[image["scores"].float() for image in found],
        )


class AsPrepared(nn.Module):
    """In place of torchvision's resizing and normalising: our images come prepared."""

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, Tensor]] | None]:
        return image_list(torch.stack(images)), targets

    def postprocess(self, found: list[Any], *_: object) -> list[Any]:
        """Boxes stay where they are."""
        return found


class Family(ABC):
    """How the detectors of a family are built, run and taken apart."""

    background: ClassVar[int] = 1
    """How many classes come before the project's own."""

    @abstractmethod
    def build(self, manifest: Manifest, weights: Mapping[str, Tensor] | None = None) -> Model:
        """The detector with random weights, all of which can be trained.

        Args:
            manifest: what to build.
            weights: see ``TaskNetwork.build``.
        """

    @abstractmethod
    def class_rows(self, model: Model) -> dict[str, ClassRows]:
        """See ``TaskNetwork.class_rows``."""

    @abstractmethod
    def heads(self, model: Model) -> list[nn.Module]:
        """The layers that say what and where the boxes are."""

    @abstractmethod
    def detect(self, model: Model, images: Tensor) -> Detected:
        """Run it on normalised images, (B, 3, S, S)."""

    def losses(
        self, model: Model, images: Tensor, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The parts of the loss of normalised images, (B, 3, S, S), while it is trained.

        Args:
            model: the detector.
            images: normalised.
            targets: of each image boxes, (K, 4), and labels, (K,), background counted.
        """
        found: dict[str, Tensor] = model(list(images), targets)
        return found

    @abstractmethod
    def backbone_name(self, name: str) -> str:
        """The name here of a tensor of the backbone's, as the network that classifies has it."""


def torchvision_detector(manifest: Manifest, background: int, **settings: float) -> Model:
    """Build torchvision's detector with random weights in all its parts."""
    return torchvision.models.get_model(
        manifest.architecture,
        weights=None,
        weights_backbone=None,
        num_classes=background + len(manifest.classes),
        **settings,
    )


def in_float32(*layers: nn.Module) -> None:
    """Have layers give float32 also where they reckon in mixed precision.

    Anchors take their type from the feature maps, and bfloat16 knows only every second pixel
    above 256.
    """

    def cast(_: nn.Module, __: object, output: Any) -> Any:
        if isinstance(output, Tensor):
            return output.float()
        if isinstance(output, dict):
            return type(output)((name, cast(_, __, value)) for name, value in output.items())
        return type(output)(cast(_, __, value) for value in output)

    for layer in layers:
        layer.register_forward_hook(cast)


def image_list(images: Tensor) -> ImageList:
    """A batch, as torchvision's parts take it."""
    return ImageList(images, [(images.shape[2], images.shape[3])] * len(images))
