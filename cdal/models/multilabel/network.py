"""Multi-label classification: for each class, whether an image has it, independently of the others.

A class that an image has is called chosen; from a probability of ``CHOSEN`` on, it is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cdal.models.classification.network import ImageNetwork
from cdal.models.data import Examples
from cdal.models.errors import ModelError, Stopped
from cdal.models.network import Objective
from cdal.models.predictions import CHOSEN, Finding, Multilabel, Prediction
from cdal.models.recipe import Recipe
from cdal.models.reports import ClassScore, Metrics


@dataclass(frozen=True, slots=True)
class MultilabelPrediction(Prediction):
    """Predicted classes; ``regions`` are the probabilities of each, (B, C), independent."""

    @property
    def probabilities(self) -> Tensor:
        """The probability of each class, (B, C) float32; rows do not sum to 1."""
        if not isinstance(self.regions, Tensor):
            raise TypeError("the regions of a multi-label classification must be one tensor")
        return self.regions

    def findings(self) -> list[Finding]:
        """The probabilities of each image."""
        return [Multilabel(row) for row in self.probabilities.cpu()]


class MultilabelNetwork(ImageNetwork):
    """A network whose classes do not exclude each other."""

    task = "multilabel"
    main_metric = "macro_f1"

    def prepare_target(self, target: Tensor, height: int, width: int) -> Tensor:  # noqa: ARG002
        """Check which classes an image has, which does not depend on the image's size."""
        wanted = (len(self.classes),)
        if target.shape != wanted or not bool(((target >= 0) & (target <= 1)).all()):
            raise ModelError(
                f"An image has the classes {target.tolist()}; there must be a number from 0 to 1 "
                f"for each of the network's {len(self.classes)} classes."
            )
        return target.float()

    def count_classes(self, target: Tensor) -> Tensor:
        return target

    def predict(self, batch: Tensor) -> Prediction:
        """Predict the probability of each class for prepared images, (B, 3, S, S) uint8."""
        features, logits = self._infer(batch)
        return MultilabelPrediction(regions=logits.sigmoid(), features=features)

    def judged(self, images: Examples, stop: Callable[[], bool]) -> tuple[Tensor, Tensor]:
        """Logits of N images and whether each has each class: (N, C) float32 and (N, C) bool."""
        logits: list[Tensor] = []
        targets: list[Tensor] = []
        order = torch.split(torch.arange(len(images)), self.prediction_batch_size)
        for batch, listed in images.batches(order):
            if stop():
                raise Stopped
            targets.append(torch.stack(list(listed)).cpu())
            logits.append(self._infer(batch)[1].cpu())
        return torch.cat(logits), torch.cat(targets) >= CHOSEN

    def measure(self, images: Examples, stop: Callable[[], bool]) -> Metrics:
        """Measure macro F1, mean average precision and cross entropy.

        Macro F1 is the mean over the classes that occur, and so is the average precision; the F1
        score of a class is that of predicting it from a probability of ``CHOSEN`` on.
        """
        # It brings scipy, which takes seconds, and few processes measure.
        from torchmetrics.functional.classification import (
            multilabel_average_precision,
            multilabel_f1_score,
        )

        logits, there = self.judged(images, stop)
        probabilities, classes = logits.sigmoid(), len(self.classes)
        counts = there.sum(0)
        known = counts > 0
        f1 = multilabel_f1_score(probabilities, there.int(), classes, CHOSEN, average=None)
        precision = multilabel_average_precision(probabilities, there.int(), classes, average=None)
        loss = functional.binary_cross_entropy_with_logits(logits, there.float(), reduction="none")
        return Metrics(
            main_name=self.main_metric,
            values={
                "macro_f1": float(f1[known].mean()) if known.any() else 0.0,
                "map": float(precision[known].mean()) if known.any() else 0.0,
                "loss": float(loss.sum(1).mean()),
            },
            per_class={
                name: ClassScore(int(counts[i]), float(f1[i]) if known[i] else None)
                for i, name in enumerate(self.classes)
            },
            confusion=(),
            images=len(there),
        )

    def objective(self, class_counts: Tensor, recipe: Recipe) -> Objective:  # noqa: ARG002
        """Binary cross entropy, summed over the classes; without weights, for calibration."""

        def loss(images: Tensor, targets: Sequence[Tensor]) -> Tensor:
            if len(images) == 1:  # batch normalisation cannot train on a single image
                images, targets = images.repeat(2, 1, 1, 1), [*targets, *targets]
            logits = self.module(self.normalise(images))[1]
            wanted = torch.stack(list(targets)).to(self.device, non_blocking=True)
            each = functional.binary_cross_entropy_with_logits(
                logits.float(), wanted, reduction="none"
            )
            return each.sum(1).mean()

        return loss
