"""Image classification on a frozen backbone: a linear layer on its pooled features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cdal.models.classification.logistic import fit_logistic
from cdal.models.classification.network import (
    ClassificationNetwork,
    ClassificationPrediction,
)
from cdal.models.classification.pooled import PooledHead
from cdal.models.classification.shares import largest, stacked
from cdal.models.data import Dataset
from cdal.models.features import ImageFeatures, LabelledFeatures
from cdal.models.head import Tell
from cdal.models.recipe import Plan, Recipe, class_weights

VECTORS_AT_ONCE = 1024


class ClassificationHead(PooledHead, ClassificationNetwork):
    """A linear layer that logistic regression fits to the pooled features of labelled images."""

    def predict(self, batch: Tensor) -> ClassificationPrediction:
        """Class probabilities and features of prepared images, (B, 3, S, S) uint8."""
        return self.judge(self.features(batch))

    def judge(self, features: Sequence[ImageFeatures]) -> ClassificationPrediction:
        rows, logits = self._logits(features)
        return ClassificationPrediction(regions=logits.softmax(1), features=rows)

    def learn(
        self,
        features: Sequence[ImageFeatures],
        targets: Sequence[Tensor],
        recipe: Recipe,
        plan: Plan,  # noqa: ARG002
        tell: Tell,
        stop: Callable[[], bool],
    ) -> list[float]:
        """Logistic regression, with more say for rare classes where the recipe has it so."""
        labels = stacked(targets, len(self.classes))
        counts = torch.stack([self.count_classes(target) for target in targets]).sum(0)
        weights = class_weights(counts, 0.5 if recipe.class_weights else 0.0)
        found = fit_logistic(self.vectors(features), labels, weights, stop=stop)
        self.module.load_state_dict({"weight": found.weight, "bias": found.bias})
        tell(1, found.loss)
        return [found.loss]


def cross_validate(
    network: ClassificationHead,
    data: Dataset | LabelledFeatures,
    folds: Sequence[int],
    recipe: Recipe,
    stop: Callable[[], bool] = lambda: False,
) -> list[int | None]:
    """The class that each image is given by a head that has learnt from the other folds alone.

    Args:
        network: its backbone is used, and its head stays as it is.
        data: N images.
        folds: of each image, (N,).
        recipe: of the trainings.
        stop: called before each step; True stops the trainings.

    Returns:
        The index of the class of each image; None where the other folds have fewer than two.

    Raises:
        Stopped: ``stop`` returned True.
    """
    features, targets = network.seen(network.examples(data, stop), stop)
    classes_of = largest(stacked(targets, len(network.classes))).tolist()
    head = network.new_head()
    found: list[int | None] = [None] * len(features)
    for fold in sorted(set(folds)):
        rest = [row for row, other in enumerate(folds) if other != fold]
        if len({classes_of[row] for row in rest}) < 2:
            continue
        chosen = [targets[row] for row in rest]
        plan = head.plan(recipe, len(rest))
        head.learn([features[row] for row in rest], chosen, recipe, plan, _tell_nobody, stop)
        rows = [row for row, other in enumerate(folds) if other == fold]
        classes = head.judge([features[row] for row in rows]).regions
        for row, probabilities in zip(rows, classes, strict=True):
            found[row] = int(probabilities.argmax())
    return found


def _tell_nobody(epoch: int, loss: float) -> None:
    """Nobody follows the trainings of a cross-validation."""
