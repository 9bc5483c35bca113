"""Instance segmentation: objects, each with a class and a mask, so that touching ones stay apart.

Such a network serves the task "segmentation": it is measured by the class of each pixel as well, so
that it can be compared with networks that learn classes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cdal.models.architecture import Architecture, Defaults
from cdal.models.class_rows import ClassRows
from cdal.models.data import Examples
from cdal.models.detection.architectures import adopt_weights, assembled
from cdal.models.detection.family import Detected
from cdal.models.detection.metrics import PrecisionMeter, mean_over_classes
from cdal.models.errors import ModelError, Stopped
from cdal.models.manifest import Manifest
from cdal.models.network import Objective, TaskNetwork
from cdal.models.predictions import BACKGROUND, IGNORED, Finding, Prediction
from cdal.models.recipe import Recipe
from cdal.models.reports import Metrics
from cdal.models.segmentation.architectures import SEGMENTERS
from cdal.models.segmentation.augment import augment_objects
from cdal.models.segmentation.mask_rcnn import MaskRcnn, finding_of, objects_in, painted
from cdal.models.segmentation.network import SegmentationNetwork, check_classes, pixel_metrics

FAMILY = MaskRcnn()


@dataclass(frozen=True, slots=True)
class InstancePrediction(Prediction):
    """Detected objects: ``regions`` are the class vectors of boxes before non-maximum suppression.

    Attributes:
        detected: the boxes, on the network's device.
        masks: how likely each place in a box belongs to its object, (K, M, M) per image.
        image_size: the side S of the prepared images.
        background: the index of its class.
    """

    detected: Detected
    masks: list[Tensor]
    image_size: int
    background: int

    def objects(self) -> list[dict[str, Tensor]]:
        """The objects of each image, the most confident first, also those of low confidence.

        Returns:
            For each image "masks" (K, S, S) bool, "labels" (K,) int64 and "scores" (K,) float32.
        """
        found = []
        for masks, boxes, labels, scores in zip(
            self.masks, self.detected.boxes, self.detected.labels, self.detected.scores, strict=True
        ):
            kept = labels != self.background
            whole = painted(masks[kept], boxes[kept], self.image_size)
            found.append({"masks": whole, "labels": labels[kept], "scores": scores[kept]})
        return found

    @torch.inference_mode()
    def findings(self) -> list[Finding]:
        """The class and the object of each pixel of the prepared images."""
        return [
            finding_of(each["masks"], each["labels"], each["scores"], self.background)
            for each in self.objects()
        ]


class InstanceNetwork(TaskNetwork):
    """Torchvision's Mask R-CNN with heads for a project's classes.

    ``BACKGROUND`` must be one of them. It has outputs like the others, but no object is ever of it.
    """

    task = "segmentation"
    main_metric = SegmentationNetwork.main_metric
    defaults = Defaults(
        learning_rate=3e-4,
        fine_tuning_rate=1e-4,
        label_smoothing=0.0,
        batch_size=(2, 8),
        prediction_batch=4,
        min_epochs=10,
        max_epochs=100,
        steps=500,
        max_side=(256, 512),
        bytes_per_pixel=8192,
    )
    learns_objects = True

    @classmethod
    def build(cls, manifest: Manifest, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        check_classes(manifest.classes)
        if BACKGROUND not in manifest.classes:
            raise ModelError(
                f"{manifest.architecture} finds objects on a background, which must be one of the "
                "classes. Treat unlabelled pixels as background, or choose another network."
            )
        module: nn.Module = assembled(FAMILY, manifest, weights)
        return module

    @classmethod
    def make(
        cls, manifest: Manifest, device: torch.device, weights: Mapping[str, Tensor] | None = None
    ) -> Self:
        """A new network; ``weights`` may also be those of its classification backbone."""
        network = cls(manifest, cls.layers(manifest, weights), device)
        if weights is not None:
            adopt_weights(network.module, weights, manifest.architecture, FAMILY)
        return network

    @property
    def entry(self) -> Architecture:
        return SEGMENTERS[self.manifest.architecture]

    def class_rows(self) -> Mapping[str, ClassRows]:
        return FAMILY.class_rows(self.module)

    def prepare_target(self, target: Tensor, height: int, width: int) -> Tensor:
        """Resize the classes and objects of pixels to match the prepared image, (2, S, S) int16."""
        if target.dtype != torch.int16 or target.shape != (2, height, width):
            raise ModelError(
                f"{self.manifest.architecture} learns objects: the target of an image of {height} "
                f"rows and {width} columns must be int16 of the shape (2, {height}, {width}), not "
                f"{target.dtype} of shape {tuple(target.shape)}."
            )
        classes = target[0]
        wrong = (classes < 0) | ((classes >= len(self.classes)) & (classes != IGNORED))
        if wrong.any():
            raise ModelError(
                f"A pixel has the class index {int(classes[wrong][0])}, but the network has "
                f"{len(self.classes)} classes, counted from 0; {IGNORED} means unknown."
            )
        size = [self.image_size] * 2
        resized: Tensor = transforms.resize(target, size, InterpolationMode.NEAREST_EXACT)
        return resized

    def count_classes(self, target: Tensor) -> Tensor:
        """The number of pixels of each class, (C,)."""
        counts = torch.bincount(target[0].flatten().long(), minlength=IGNORED + 1)
        return counts[: len(self.classes)]

    def augment(
        self, images: Tensor, targets: Sequence[Tensor], draws: Generator
    ) -> tuple[Tensor, list[Tensor]]:
        """Scale, crop, flip and recolour, objects with their images."""
        maps = torch.stack(list(targets)).to(images.device, non_blocking=True)
        images, maps = augment_objects(images, maps, draws)
        return images, list(maps)

    @torch.inference_mode()
    def predict(self, batch: Tensor) -> InstancePrediction:
        """Predict objects and features of prepared images, (B, 3, S, S) uint8."""
        with self.autocast():
            found, masks = FAMILY.detect_with_masks(self.module, self.normalise(batch))
        return InstancePrediction(
            found.candidates.regions(),
            found.features,
            found,
            [image.float() for image in masks],
            self.image_size,
            self.classes.index(BACKGROUND),
        )

    @torch.inference_mode()
    def measure(self, images: Examples, stop: Callable[[], bool]) -> Metrics:
        """Measure the class of each pixel, and the average precision of masks by COCO's rules.

        "mask_map_50" is the mean over classes at an intersection over union of 0.5, "mask_map" the
        mean over 0.5, 0.55, …, 0.95 as well. All are measured at the network's input size S. Pixels
        that are ``IGNORED`` do not count, nor do found objects of which these are most.
        """
        count = len(self.classes)
        meter = PrecisionMeter(count, of_masks=True)
        confusion = torch.zeros(count * count, dtype=torch.int64)
        order = torch.split(torch.arange(len(images)), self.prediction_batch_size)
        for batch, targets in images.batches(order):
            if stop():
                raise Stopped
            predicted = self.predict(batch)
            for each, target in zip(predicted.objects(), targets, strict=True):
                finding = finding_of(
                    each["masks"], each["labels"], each["scores"], predicted.background
                )
                true = target[0].long()
                known = true != IGNORED
                pairs = true * count + finding.labels.long()
                confusion += torch.bincount(pairs[known], minlength=count * count)
                found = {name: values.cpu() for name, values in each.items()}
                areas = found["masks"].sum((1, 2))
                seen = 2 * (found["masks"] & known).sum((1, 2)) >= areas
                there = objects_in(target)
                meter.update_masks(
                    [{name: values[seen] for name, values in found.items()}],
                    [{"masks": there["masks"], "labels": there["labels"]}],
                )
        precision = meter.compute()
        more = {
            "mask_map_50": mean_over_classes(precision.at_50),
            "mask_map": mean_over_classes(precision.at_all),
        }
        return pixel_metrics(self.classes, confusion.view(count, count), len(images), more)

    def objective(self, class_counts: Tensor, recipe: Recipe) -> Objective:  # noqa: ARG002
        """The sum of Mask R-CNN's own losses.

        These balance objects and background themselves, so label smoothing and class weights do not
        apply. They cannot leave out pixels: what is ``IGNORED`` is hidden.
        """
        if not class_counts.any():
            raise ModelError("There are no labelled pixels to learn from.")

        def loss(images: Tensor, targets: Sequence[Tensor]) -> Tensor:
            if len(images) == 1:  # batch normalisation cannot train on a single image
                images, targets = images.repeat(2, 1, 1, 1), [*targets, *targets]
            maps = torch.stack(list(targets)).to(self.device, non_blocking=True)
            # Normalised, 0 is the mean colour.
            shown = self.normalise(images) * (maps[:, :1] != IGNORED)
            wanted = [objects_in(each) for each in maps]
            for each in wanted:
                each["labels"] += FAMILY.background
                each["masks"] = each["masks"].to(torch.uint8)
            losses = FAMILY.losses(self.module, shown, wanted)
            return torch.stack(list(losses.values())).sum()

        return loss
