"""Object detection: boxes, each with a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor, nn

from cdal.models.architecture import Architecture, Defaults
from cdal.models.class_rows import ClassRows
from cdal.models.data import Examples
from cdal.models.detection.architectures import DETECTORS, adopt, build_detector
from cdal.models.detection.augment import augment_boxes
from cdal.models.detection.boxes import rescaled
from cdal.models.detection.family import Detected, Family
from cdal.models.detection.metrics import (
    MOST_BOXES,
    PrecisionMeter,
    box_confusion,
    may_be_turned,
    mean_over_classes,
    turned_precision,
)
from cdal.models.errors import ModelError, Stopped
from cdal.models.manifest import Manifest
from cdal.models.network import Objective, TaskNetwork
from cdal.models.predictions import Detections, Finding, Prediction
from cdal.models.recipe import Recipe
from cdal.models.reports import ClassScore, Metrics


@dataclass(frozen=True, slots=True)
class DetectionPrediction(Prediction):
    """Detected boxes: ``regions`` are the class vectors of boxes before non-maximum suppression.

    Attributes:
        detected: the detector's output, on the network's device.
        image_size: the side S of the prepared images.
    """

    detected: Detected
    image_size: int

    def findings(self) -> list[Finding]:
        """The boxes found in each image, as shares of its width and height.

        An image is resized to a square without cropping, so the shares hold at its original size.
        """
        counts = [len(scores) for scores in self.detected.scores]
        boxes = (torch.cat(self.detected.boxes) / self.image_size).clamp(0, 1).cpu()
        labels = torch.cat(self.detected.labels).cpu()
        scores = torch.cat(self.detected.scores).cpu()
        parts = (torch.split(values, counts) for values in (boxes, labels, scores))
        return [Detections(b.clone(), c.clone(), s.clone()) for b, c, s in zip(*parts, strict=True)]


class DetectionNetwork(TaskNetwork):
    """A detector of torchvision with heads for the project's classes."""

    task = "detection"
    main_metric = "map_50"
    defaults = Defaults(
        learning_rate=2e-3,
        fine_tuning_rate=3e-4,
        label_smoothing=0.0,
        batch_size=(8, 16),
        prediction_batch=16,
        min_epochs=10,
        max_epochs=100,
        steps=500,
        max_side=(224, 320),
        bytes_per_pixel=4096,  # retinanet_resnet50_fpn_v2
    )

    @classmethod
    def build(cls, manifest: Manifest, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        module: nn.Module = build_detector(manifest, weights)
        return module

    @classmethod
    def make(
        cls, manifest: Manifest, device: torch.device, weights: Mapping[str, Tensor] | None = None
    ) -> Self:
        """A new detector; ``weights`` may also be those of its classification backbone."""
        network = cls(manifest, cls.layers(manifest, weights), device)
        if weights is not None:
            adopt(network.module, weights, manifest.architecture)
        return network

    @property
    def entry(self) -> Architecture:
        return DETECTORS[self.manifest.architecture]

    @property
    def most_boxes(self) -> int:
        """The number of boxes per image and class that count in its metrics."""
        return MOST_BOXES

    @property
    def _family(self) -> Family:
        return DETECTORS[self.manifest.architecture].family

    def class_rows(self) -> Mapping[str, ClassRows]:
        return self._family.class_rows(self.module)

    def prepare_target(self, target: Tensor, height: int, width: int) -> Tensor:
        """Rescale boxes to pixels of the prepared image and clip them to it.

        Boxes with a side shorter than ``MIN_SIDE`` there are dropped.
        """
        self.check_boxes(target)
        return rescaled(target[:, :5], height, width, self.image_size)

    def check_boxes(self, target: Tensor) -> None:
        """Check that rows are boxes with a class of the network.

        Raises:
            ModelError: they are not.
        """
        if target.ndim != 2 or target.shape[1] not in (5, 7) or not target.isfinite().all():
            raise ModelError(
                "The boxes of an image must be finite rows of left, top, right, bottom and class, "
                "and of a turn if they are rotated; "
                f"this target has the shape {tuple(target.shape)}."
            )
        classes = target[:, 4]
        wrong = classes[
            (classes != classes.round()) | (classes < 0) | (classes >= len(self.classes))
        ]
        if len(wrong):
            raise ModelError(
                f"A box has the class index {float(wrong[0]):g}, but the network has "
                f"{len(self.classes)} classes, counted from 0."
            )

    def count_classes(self, target: Tensor) -> Tensor:
        return torch.bincount(target[:, 4].long(), minlength=len(self.classes))

    def augment(
        self, images: Tensor, targets: Sequence[Tensor], draws: Generator
    ) -> tuple[Tensor, list[Tensor]]:
        """Zoom, shift, flip and recolour the images, and move their boxes with them."""
        return augment_boxes(images, targets, draws)

    def predict(self, batch: Tensor) -> DetectionPrediction:
        """Predict boxes and features of prepared images, (B, 3, S, S) uint8."""
        found = self._infer(batch)
        return DetectionPrediction(
            found.candidates.regions(), found.features, found, self.image_size
        )

    def find(
        self, images: Examples, stop: Callable[[], bool] = lambda: False
    ) -> tuple[list[dict[str, Tensor]], list[Tensor]]:
        """Detect the objects of labelled images.

        Returns:
            For each image, on the CPU: "boxes", (K, 4) float32 in pixels of the prepared image,
            "labels", (K,) int64, and "scores", (K,) float32, descending; of a head that finds
            rotated boxes, these are spreads, and there are "tilts", (K,) float32. And the prepared
            target of each image, (M, 5) or (M, 6).

        Raises:
            Stopped: ``stop`` returned True.
        """
        each: list[dict[str, Tensor]] = []
        true: list[Tensor] = []
        order = torch.split(torch.arange(len(images)), self.prediction_batch_size)
        for batch, targets in images.batches(order):
            if stop():
                raise Stopped
            found = self._infer(batch)
            of_batch = [
                {"boxes": b.cpu(), "labels": c.cpu(), "scores": s.cpu()}
                for b, c, s in zip(found.boxes, found.labels, found.scores, strict=True)
            ]
            for image, tilts in zip(of_batch, found.tilts or (), strict=False):
                image["tilts"] = tilts.cpu()
            each += of_batch
            true += targets
        return each, true

    def measure(self, images: Examples, stop: Callable[[], bool]) -> Metrics:
        """Measure average precision by COCO's rules, and the confusion matrix.

        "map_50" is the mean over classes at an intersection over union of 0.5, "map" the mean over
        0.5, 0.55, …, 0.95 as well.
        """
        return self.metrics_of(*self.find(images, stop))

    def metrics_of(self, found: Sequence[dict[str, Tensor]], targets: Sequence[Tensor]) -> Metrics:
        """The metrics of ``measure``, given what ``find`` returns."""
        counts = self.count_classes(torch.cat([rows[:, :5] for rows in targets]))
        if may_be_turned(found, targets):
            precision = turned_precision(found, targets, len(self.classes), self.most_boxes)
        else:
            meter = PrecisionMeter(len(self.classes), most=self.most_boxes)
            meter.update(found, targets)
            precision = meter.compute()
        confusion = box_confusion(found, targets, len(self.classes))
        return Metrics(
            main_name=self.main_metric,
            values={
                "map_50": mean_over_classes(precision.at_50),
                "map": mean_over_classes(precision.at_all),
            },
            per_class={
                name: ClassScore(int(counts[i]), precision.at_50[i])
                for i, name in enumerate(self.classes)
            },
            confusion=tuple(tuple(row) for row in confusion.tolist()),
            images=len(targets),
        )

    def objective(self, class_counts: Tensor, recipe: Recipe) -> Objective:  # noqa: ARG002
        """The sum of the detector's own losses.

        These balance objects and background themselves, so label smoothing and class weights do not
        apply.
        """
        family = self._family

        def loss(images: Tensor, targets: Sequence[Tensor]) -> Tensor:
            if len(images) == 1:  # batch normalisation cannot train on a single image
                images, targets = images.repeat(2, 1, 1, 1), [*targets, *targets]
            rows = [target.to(self.device, non_blocking=True) for target in targets]
            labels = [of_image[:, 4].long() + family.background for of_image in rows]
            wanted = [
                {"boxes": of_image[:, :4], "labels": numbers}
                for of_image, numbers in zip(rows, labels, strict=True)
            ]
            losses = family.losses(self.module, self.normalise(images), wanted)
            return torch.stack(list(losses.values())).sum()

        return loss

    @torch.inference_mode()
    def _infer(self, batch: Tensor) -> Detected:
        family = self._family
        with self.autocast():
            return family.detect(self.module, self.normalise(batch))
