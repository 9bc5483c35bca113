"""Image classification: one class per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from cdal.models.architecture import Architecture, Defaults
from cdal.models.augment import augment
from cdal.models.class_rows import ClassRows
from cdal.models.classification.architectures import CLASSIFIERS, build_classifier
from cdal.models.classification.shares import largest, shares, stacked
from cdal.models.data import Examples
from cdal.models.errors import ModelError, Stopped
from cdal.models.manifest import Manifest
from cdal.models.network import Objective, TaskNetwork
from cdal.models.predictions import Classification, Finding, Prediction
from cdal.models.recipe import Recipe, class_weights
from cdal.models.reports import ClassScore, Metrics

SUM_TOLERANCE = 1e-4
"""How far the shares of an image's classes may be from summing to 1."""


class Classifier(nn.Module):
    """A network in two parts: the trunk computes an image's features, the head its class scores."""

    def __init__(self, architecture: str, trunk: nn.Module, classes: int) -> None:
        super().__init__()
        last = trunk.get_submodule(CLASSIFIERS[architecture].head)
        if not isinstance(last, nn.Linear):
            raise TypeError(f"the head of {architecture} is not a linear layer")
        trunk.set_submodule(CLASSIFIERS[architecture].head, nn.Identity())
        self.trunk = trunk
        self.head = nn.Linear(last.in_features, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features (B, D) and logits (B, C) of normalised images (B, 3, S, S)."""
        features: Tensor = self.trunk(images)
        return features, self.head(features)


@dataclass(frozen=True, slots=True)
class ClassificationPrediction(Prediction):
    """Predicted classes; each image is one region, so ``regions`` are (B, C) probabilities."""

    @property
    def probabilities(self) -> Tensor:
        """Class probabilities, (B, C) float32, whose rows sum to 1."""
        if not isinstance(self.regions, Tensor):
            raise TypeError("the regions of a classification must be one tensor")
        return self.regions

    def findings(self) -> list[Finding]:
        """The most probable class of each image."""
        confidence, best = (values.tolist() for values in self.probabilities.cpu().max(1))
        return [Classification(*pair) for pair in zip(best, confidence, strict=True)]


class ImageNetwork(TaskNetwork):
    """A classification network of torchvision with a head for the project's classes.

    What its outputs mean is the task's.
    """

    defaults = Defaults(
        learning_rate=2e-3,
        fine_tuning_rate=1e-3,
        label_smoothing=0.1,
        batch_size=(32, 64),
        prediction_batch=64,
        min_epochs=15,
        max_epochs=50,
        steps=500,
        max_side=(128, 224),  # torchvision's weights were trained at 224
        bytes_per_pixel=2048,  # resnet50
    )
    module: Classifier

    @classmethod
    def build(cls, manifest: Manifest, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        check_classes(manifest.classes)
        trunk = build_classifier(
            manifest.architecture, manifest.image_size, manifest.pretrained, weights
        )
        return Classifier(manifest.architecture, trunk, len(manifest.classes))

    @property
    def entry(self) -> Architecture:
        return CLASSIFIERS[self.manifest.architecture]

    def class_rows(self) -> Mapping[str, ClassRows]:
        return {"head.weight": ClassRows(), "head.bias": ClassRows()}

    def augment(
        self, images: Tensor, targets: Sequence[Tensor], draws: Generator
    ) -> tuple[Tensor, list[Tensor]]:
        """Shift, flip and recolour the images; their classes stay the same."""
        return augment(images, draws), list(targets)

    @torch.inference_mode()
    def _infer(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        with self.autocast():
            features, logits = self.module(self.normalise(batch))
        return features.float(), logits.float()


class ClassificationNetwork(ImageNetwork):
    """A network whose classes exclude each other."""

    task = "classification"
    main_metric = "accuracy"

    def prepare_target(self, target: Tensor, height: int, width: int) -> Tensor:  # noqa: ARG002
        """Check the class of an image, or its shares, which do not depend on the image's size."""
        if target.shape == (len(self.classes),) and target.is_floating_point():
            if target.min() < 0 or abs(float(target.sum()) - 1) > SUM_TOLERANCE:
                raise ModelError(
                    f"An image has the class shares {target.tolist()}; they must sum to 1."
                )
            return target.float()
        if target.shape != () or not 0 <= int(target) < len(self.classes):
            raise ModelError(
                f"An image has the class index {target.tolist()}, but the network has "
                f"{len(self.classes)} classes, counted from 0."
            )
        return target.long()

    def count_classes(self, target: Tensor) -> Tensor:
        return shares(target, len(self.classes))

    def predict(self, batch: Tensor) -> ClassificationPrediction:
        """Predict class probabilities and features of prepared images, (B, 3, S, S) uint8."""
        features, logits = self._infer(batch)
        return ClassificationPrediction(regions=logits.softmax(1), features=features)

    def measure(self, images: Examples, stop: Callable[[], bool]) -> Metrics:
        """Measure accuracy, its mean over classes, cross entropy and the confusion matrix."""
        # It brings scipy, which takes seconds, and few processes measure.
        from torchmetrics.classification import MulticlassConfusionMatrix

        confusion = MulticlassConfusionMatrix(
            len(self.classes), validate_args=False, sync_on_compute=False
        )
        loss = 0.0
        order = torch.split(torch.arange(len(images)), self.prediction_batch_size)
        for batch, listed in images.batches(order):
            if stop():
                raise Stopped
            targets = stacked(listed, len(self.classes))
            logits = self._infer(batch)[1].cpu()
            loss += float(functional.cross_entropy(logits, targets, reduction="sum"))
            confusion.update(logits.argmax(1), largest(targets))
        return self._metrics(confusion.compute(), loss / len(images))

    def objective(self, class_counts: Tensor, recipe: Recipe) -> Objective:
        """Cross entropy with label smoothing and class weights, as the recipe says."""
        weights = class_weights(class_counts).to(self.device) if recipe.class_weights else None
        smoothing = recipe.smoothing(self.defaults)

        def loss(images: Tensor, targets: Sequence[Tensor]) -> Tensor:
            if len(images) == 1:  # batch normalisation cannot train on a single image
                images, targets = images.repeat(2, 1, 1, 1), [*targets, *targets]
            logits = self.module(self.normalise(images))[1]
            wanted = stacked(targets, len(self.classes)).to(self.device, non_blocking=True)
            return functional.cross_entropy(logits, wanted, weights, label_smoothing=smoothing)

        return loss

    def _metrics(self, confusion: Tensor, loss: float) -> Metrics:
        counts = confusion.sum(1)
        right = confusion.diagonal()
        recall = right / counts
        return Metrics(
            main_name=self.main_metric,
            values={
                "accuracy": float(right.sum() / counts.sum()),
                "macro_accuracy": float(recall[counts > 0].mean()),
                "loss": loss,
            },
            per_class={
                name: ClassScore(int(counts[i]), float(recall[i]) if counts[i] else None)
                for i, name in enumerate(self.classes)
            },
            confusion=tuple(tuple(row) for row in confusion.tolist()),
            images=int(counts.sum()),
        )


def check_classes(classes: Sequence[str]) -> None:
    """Check that there are classes to tell apart.

    Raises:
        ModelError: there are not.
    """
    if len(classes) < 2:
        raise ModelError(
            f'Classification needs at least two classes; there is only "{classes[0]}". Add a class.'
        )
