"""Networks with a frozen backbone, whose small head learns the classes from kept features."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from cdal.models.architecture import Architecture
from cdal.models.backbone import BackboneRecord, open_backbone
from cdal.models.data import Dataset, Examples
from cdal.models.errors import ModelError, Stopped
from cdal.models.features import ImageFeatures, LabelledFeatures, image_key
from cdal.models.manifest import Manifest
from cdal.models.network import Objective, TaskNetwork
from cdal.models.predictions import Prediction
from cdal.models.recipe import Plan, Recipe
from cdal.models.reports import FitProgress, FitReport

READING = 0.7
"""The share of the progress attributed to computing the features of new images."""

Tell = Callable[[int, float], None]
"""Called after each epoch with its number and its mean loss."""


class HeadNetwork(TaskNetwork):
    """A network whose module is only the head; the backbone is shared, and not saved with it.

    The backbone turns prepared images into features, which are kept by the images' content, and the
    head turns features into a prediction. So the backbone sees an image once, however many heads
    are trained.

    Attributes:
        use: what is extracted: features of whole images, or maps of their places.
        backbone: computes the features.
    """

    use: ClassVar[str]

    def __init__(self, manifest: Manifest, module: nn.Module, device: torch.device) -> None:
        super().__init__(manifest, module, device)
        sha256 = self.record(manifest).sha256
        self.backbone = open_backbone(manifest.architecture, device, sha256=sha256)

    @staticmethod
    def record(manifest: Manifest) -> BackboneRecord:
        """The manifest's record of its backbone.

        Raises:
            ModelError: it has none.
        """
        if manifest.backbone is None:
            raise ModelError(f"The manifest of {manifest.architecture} lacks its backbone.")
        return manifest.backbone

    @property
    def entry(self) -> Architecture:
        return Architecture()

    @property
    def extraction(self) -> str:
        """What an image's features depend on besides the image, as a name for a folder.

        What changes ``prepare`` or ``extract`` must change ``use``, too.
        """
        return f"{self.use}-{self.image_size}-{self.backbone.record.sha256[:32]}"

    @property
    def judged_at_once(self) -> int:
        """The number of images whose features ``judge`` takes at once."""
        return self.prediction_batch_size

    def examples(self, data: Dataset | LabelledFeatures, stop: Callable[[], bool]) -> Examples:
        if isinstance(data, LabelledFeatures) and data.extraction == self.extraction:
            return data
        return super().examples(data, stop)

    def features(self, batch: Tensor | Sequence[ImageFeatures]) -> Sequence[ImageFeatures]:
        """The features of prepared images, (B, 3, S, S) uint8, computed unless they are kept.

        Features instead of images are returned as they are.
        """
        if not isinstance(batch, Tensor):
            return batch
        kept = self.backbone.kept
        keys = [image_key(image, self.extraction) for image in batch]
        found = [kept.get(key) for key in keys]
        new = [row for row, features in enumerate(found) if features is None]
        if new:
            for row, features in zip(new, self.look(batch[new]), strict=True):
                kept.put(keys[row], features)
                found[row] = features
        return [features for features in found if features is not None]

    def look(self, images: Tensor | Sequence[Tensor]) -> list[ImageFeatures]:
        """Compute the features of prepared images, without keeping them."""
        return self.look_at(images if isinstance(images, Tensor) else torch.stack(list(images)))

    def look_at(self, batch: Tensor) -> list[ImageFeatures]:
        """As ``extract``, but in smaller batches when the device runs out of memory."""
        try:
            return self.extract(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        # Outside the handler: the exception would keep the batch's tensors in memory.
        self.halve_batches()
        half = len(batch) // 2
        return self.look_at(batch[:half]) + self.look_at(batch[half:])

    @abstractmethod
    def extract(self, batch: Tensor) -> list[ImageFeatures]:
        """Compute the features of prepared images, (B, 3, S, S) uint8, without keeping them."""

    @abstractmethod
    def vectors(self, features: Sequence[ImageFeatures]) -> Tensor:
        """One vector per image, (B, D) float32, by the backbone alone."""

    @abstractmethod
    def judge(self, features: Sequence[ImageFeatures]) -> Prediction:
        """The head's prediction, given the features of B images."""

    @abstractmethod
    def learn(
        self,
        features: Sequence[ImageFeatures],
        targets: Sequence[Tensor],
        recipe: Recipe,
        plan: Plan,
        tell: Tell,
        stop: Callable[[], bool],
    ) -> list[float]:
        """Train the head, starting from its current weights.

        Args:
            features: the features of N images.
            targets: their prepared targets.
            recipe: the recipe of the training.
            plan: the recipe with every value settled.
            tell: called after each epoch.
            stop: called before each step; True stops the training.

        Returns:
            The mean loss of each epoch.

        Raises:
            ModelError: there is nothing to learn from, or the loss is not finite.
            Stopped: ``stop`` returned True.
        """

    def lessons(
        self, features: Sequence[ImageFeatures], targets: Sequence[Tensor]
    ) -> tuple[Sequence[ImageFeatures], Sequence[Tensor]]:
        """What a training step draws from, given labelled images: these, or parts of them."""
        return features, targets

    def plan(self, recipe: Recipe, images: int) -> Plan:
        """The recipe with every value settled, for this many images."""
        return recipe.plan(images, self.device, self.image_size, True, self.defaults)

    def predict(self, batch: Tensor) -> Prediction:
        return self.judge(self.features(batch))

    def objective(self, class_counts: Tensor, recipe: Recipe) -> Objective:  # noqa: ARG002
        """Refused: ``learn`` trains a head on features, not on images."""
        raise ModelError(
            f"{self.manifest.architecture} is frozen; train the head on it with cdal.models.fit."
        )

    def seen(
        self,
        images: Examples,
        stop: Callable[[], bool],
        progress: Callable[[float], None] = lambda _: None,
    ) -> tuple[Sequence[ImageFeatures], Sequence[Tensor]]:
        """The features of all images, and their targets.

        Raises:
            Stopped: ``stop`` returned True.
        """
        if isinstance(images, LabelledFeatures):
            return images.features, images.targets
        features: list[ImageFeatures] = []
        targets: list[Tensor] = []
        order = torch.split(torch.arange(len(images)), self.prediction_batch_size)
        for batch, of_batch in images.batches(order):
            if stop():
                raise Stopped
            features += self.features(batch)
            targets += [target.cpu() for target in of_batch]
            progress(len(features) / len(images))
        return features, targets


def fit_head(
    network: HeadNetwork,
    train: Dataset | LabelledFeatures,
    held_out: Dataset | LabelledFeatures | None,
    recipe: Recipe,
    progress: Callable[[FitProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> FitReport:
    """Train a network's head on at least one image; see ``cdal.models.fit``.

    The held-out images are measured once, at the end.
    """
    begun = time.monotonic()
    plan = network.plan(recipe, len(train))
    images = network.examples(train, stop)
    features, targets = network.seen(
        images, stop, lambda share: progress(FitProgress(0, plan.epochs, READING * share))
    )

    features, targets = network.lessons(features, targets)
    plan = network.plan(recipe, len(features))

    def tell(epoch: int, loss: float) -> None:
        share = READING + (1 - READING) * epoch / plan.epochs
        progress(FitProgress(epoch, plan.epochs, share, loss))

    losses = network.learn(features, targets, recipe, plan, tell, stop)
    metrics = None
    if held_out is not None and len(held_out):
        metrics = network.evaluate(held_out, stop)
    return FitReport(
        recipe=recipe,
        plan=plan,
        images=len(images),
        held_out_images=0 if held_out is None else len(held_out),
        seconds=time.monotonic() - begun,
        losses=tuple(losses),
        held_out=() if metrics is None else (metrics.main,),
        metrics=metrics,
    )
