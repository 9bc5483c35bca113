"""Image classification on a frozen backbone: a linear layer on its pooled features."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from cdal.models.architecture import Defaults
from cdal.models.class_rows import ClassRows
from cdal.models.classification.logistic import ITERATIONS, fit_logistic
from cdal.models.classification.network import (
    ClassificationNetwork,
    ClassificationPrediction,
    check_classes,
)
from cdal.models.classification.shares import largest, stacked
from cdal.models.data import Dataset
from cdal.models.features import ImageFeatures, LabelledFeatures, VectorFeatures
from cdal.models.head import HeadNetwork, Tell
from cdal.models.manifest import Manifest
from cdal.models.recipe import Plan, Recipe, class_weights

VECTORS_AT_ONCE = 1024


class ClassificationHead(HeadNetwork, ClassificationNetwork):
    """A linear layer that logistic regression fits to the pooled features of labelled images."""

    use = "pooled"
    defaults = Defaults(
        learning_rate=1.0,
        fine_tuning_rate=1.0,
        label_smoothing=0.0,
        batch_size=(64, 256),
        prediction_batch=32,
        min_epochs=1,
        max_epochs=ITERATIONS,
        steps=ITERATIONS,
        max_side=(160, 224),
        bytes_per_pixel=512,
    )

    @classmethod
    def build(
        cls,
        manifest: Manifest,
        weights: Mapping[str, Tensor] | None = None,  # noqa: ARG003 — the same layers for all
    ) -> nn.Module:
        check_classes(manifest.classes)
        head = nn.Linear(cls.record(manifest).features, len(manifest.classes))
        # Before training, every class is equally probable.
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head

    @property
    def judged_at_once(self) -> int:
        """More than images at a time: a vector takes little memory, and a call costs something."""
        return VECTORS_AT_ONCE

    def class_rows(self) -> Mapping[str, ClassRows]:
        return {"weight": ClassRows(), "bias": ClassRows()}

    def extract(self, batch: Tensor) -> list[ImageFeatures]:
        with self.autocast():
            pooled = self.backbone.pooled(self.normalise(batch)).half().cpu()
        whole = (self.image_size, self.image_size)
        return [ImageFeatures((row.clone(),), whole) for row in pooled]

    def predict(self, batch: Tensor) -> ClassificationPrediction:
        """Class probabilities and features of prepared images, (B, 3, S, S) uint8."""
        return self.judge(self.features(batch))

    def vectors(self, features: Sequence[ImageFeatures]) -> Tensor:
        if isinstance(features, VectorFeatures):
            return features.vectors.float()
        return torch.stack([image.maps[0] for image in features]).float()

    def judge(self, features: Sequence[ImageFeatures]) -> ClassificationPrediction:
        rows, logits = self._logits(features)
        return ClassificationPrediction(regions=logits.softmax(1), features=rows)

    def plan(self, recipe: Recipe, images: int) -> Plan:  # noqa: ARG002 — nothing of it applies
        """All images in each of the iterations, of which there are as many as it takes."""
        return Plan(1, images, 1, 1.0, mixed_precision=False)

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

    def new_head(self) -> ClassificationHead:
        """A network on the same backbone whose head can be trained without changing this one's."""
        return type(self)(self.manifest, copy.deepcopy(self.module), self.device)

    @torch.inference_mode()
    def _infer(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return self._logits(self.features(batch))

    @torch.inference_mode()
    def logits_of(self, vectors: Tensor) -> Tensor:
        """The head's output (B, C), given vectors (B, D) on the device."""
        logits: Tensor = self.module(vectors)
        return logits

    def _logits(self, features: Sequence[ImageFeatures]) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, C), on the device."""
        rows = self.vectors(features).to(self.device)
        return rows, self.logits_of(rows)


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
