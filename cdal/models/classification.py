"""Image classification: one class an image."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassConfusionMatrix

from cdal.models.architectures import CLASSIFIERS, build_classifier
from cdal.models.data import Dataset, PreparedImages
from cdal.models.devices import prediction_batch_size
from cdal.models.errors import ModelError, Stopped
from cdal.models.manifest import Manifest
from cdal.models.network import Objective, Prediction, TaskNetwork
from cdal.models.randomness import seeded
from cdal.models.recipe import Recipe
from cdal.models.reports import ClassScore, Metrics


class Classifier(nn.Module):
    """A network in two parts: the trunk makes features of an image, the head scores its classes."""

    def __init__(self, architecture: str, trunk: nn.Module, classes: int) -> None:
        super().__init__()
        last = trunk.get_submodule(CLASSIFIERS[architecture].head)
        if not isinstance(last, nn.Linear):
            raise TypeError(f"the head of {architecture} is no linear layer")
        trunk.set_submodule(CLASSIFIERS[architecture].head, nn.Identity())
        self.trunk = trunk
        self.head = nn.Linear(last.in_features, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, S, S) to features (B, D) and logits (B, C)."""
        features: Tensor = self.trunk(images)
        return features, self.head(features)


class ClassificationNetwork(TaskNetwork):
    """One of torchvision's classification networks with a head for the project's classes."""

    task = "classification"
    module: Classifier

    @classmethod
    def make(
        cls, manifest: Manifest, device: torch.device, weights: Mapping[str, Tensor] | None
    ) -> ClassificationNetwork:
        """A network with a fresh head on a trunk with fresh weights or with torchvision's.

        Raises:
            ModelError: the weights are not those of this architecture.
        """
        with seeded(manifest.seed, torch.device("cpu")):
            trunk = build_classifier(
                manifest.architecture, manifest.image_size, manifest.pretrained
            )
            if weights is not None:
                fill(trunk, weights, manifest.architecture)
            module = Classifier(manifest.architecture, trunk, len(manifest.classes))
        return cls(manifest, module, device)

    @classmethod
    def restore(
        cls, manifest: Manifest, device: torch.device, weights: Mapping[str, Tensor]
    ) -> ClassificationNetwork:
        """A saved network.

        Raises:
            ModelError: the weights don't fit the manifest.
        """
        network = cls.make(manifest, torch.device("cpu"), None)
        fill(network.module, weights, "the manifest")
        return cls(manifest, network.module, device)

    def with_classes(self, classes: Sequence[str]) -> ClassificationNetwork:
        """This network for other classes: what the head knows of a class is kept by its name."""
        manifest = replace(self.manifest, classes=tuple(classes))
        old = self.module.head
        with seeded(manifest.seed, torch.device("cpu")):
            head = nn.Linear(old.in_features, len(classes))
        kept = [name for name in classes if name in self.classes]
        rows_from = [self.classes.index(name) for name in kept]
        rows_to = [manifest.classes.index(name) for name in kept]
        with torch.no_grad():
            head.weight[rows_to] = old.weight[rows_from].cpu()
            head.bias[rows_to] = old.bias[rows_from].cpu()
        module = copy.deepcopy(self.module)
        module.head = head
        return type(self)(manifest, module, self.device)

    def predict(self, batch: Tensor) -> Prediction:
        """Class probabilities and features of prepared images, (B, 3, S, S) uint8."""
        features, logits = self._infer(batch)
        return Prediction(probabilities=logits.softmax(1), features=features)

    def evaluate(self, data: Dataset, stop: Callable[[], bool] = lambda: False) -> Metrics:
        """Accuracy, its mean over the classes, cross entropy and the confusion matrix."""
        if len(data) == 0:
            raise ModelError("There are no labelled images to measure the network on.")
        images = data if isinstance(data, PreparedImages) else self.read(data, stop)
        self._check(images.targets)
        size = prediction_batch_size(self.device, self.manifest.image_size)
        confusion = MulticlassConfusionMatrix(len(self.classes), validate_args=False)
        loss = 0.0
        for batch, targets in images.batches(torch.split(torch.arange(len(images)), size)):
            if stop():
                raise Stopped
            logits = self._infer(batch)[1].cpu()
            loss += float(functional.cross_entropy(logits, targets, reduction="sum"))
            confusion.update(logits.argmax(1), targets)
        return self._metrics(confusion.compute(), loss / len(data))

    def objective(self, targets: Tensor, recipe: Recipe) -> Objective:
        """Cross entropy, smoothed, and weighted so that rare classes count as much as others."""
        self._check(targets)
        weights = None
        if recipe.class_weights:
            weights = class_weights(targets, len(self.classes)).to(self.device)

        def loss(images: Tensor, targets: Tensor) -> Tensor:
            logits = self.module(self.normalise(images))[1]
            targets = targets.to(self.device, non_blocking=True)
            return functional.cross_entropy(
                logits, targets, weights, label_smoothing=recipe.label_smoothing
            )

        return loss

    @torch.inference_mode()
    def _infer(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        with self.autocast():
            features, logits = self.module(self.normalise(batch))
        return features.float(), logits.float()

    def _check(self, targets: Tensor) -> None:
        wrong = targets[(targets < 0) | (targets >= len(self.classes))]
        if len(wrong):
            raise ModelError(
                f"An image has class number {int(wrong[0])}, but the network has "
                f"{len(self.classes)} classes, counted from 0."
            )

    def _metrics(self, confusion: Tensor, loss: float) -> Metrics:
        counts = confusion.sum(1)
        right = confusion.diagonal()
        recall = right / counts
        return Metrics(
            main_name="accuracy",
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


def class_weights(targets: Tensor, classes: int) -> Tensor:
    """The weight of each class in the loss, (C,) float32: inverse to its number of images.

    A class without any has weight 0, so that label smoothing does not teach it either; over the
    images the mean weight is 1.
    """
    counts = targets.bincount(minlength=classes).float()
    weights = len(targets) / ((counts > 0).sum() * counts)
    return torch.where(counts > 0, weights, 0.0)


def fill(module: nn.Module, weights: Mapping[str, Tensor], owner: str) -> None:
    """Give a module its weights.

    Raises:
        ModelError: names or shapes differ.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"The weights don't fit {owner}: {reason}") from error
