"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation import LRASPP
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cdal.models.architecture import Architecture, Defaults
from cdal.models.class_rows import ClassRows
from cdal.models.data import Examples
from cdal.models.errors import ModelError, Stopped, UnlabelledError
from cdal.models.manifest import Manifest
from cdal.models.network import Objective, TaskNetwork
from cdal.models.predictions import IGNORED, Finding, Prediction, Segmentation
from cdal.models.recipe import Recipe, class_weights
from cdal.models.reports import ClassScore, Metrics
from cdal.models.segmentation.architectures import SEGMENTERS, build_segmenter
from cdal.models.segmentation.augment import augment_masks
from cdal.models.segmentation.label_maps import label_map


class Segmenter(nn.Module):
    """A backbone and a classifier, whose logits stay at the network's own stride."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone = network.get_submodule("backbone")
        self.classifier = network.get_submodule("classifier")
        self._takes_all_maps = isinstance(network, LRASPP) or hasattr(network, "takes_all_maps")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features (B, D) and logits (B, C, h, w) of normalised images (B, 3, S, S)."""
        maps: Mapping[str, Tensor] = self.backbone(images)
        deepest = list(maps.values())[-1]
        logits: Tensor = self.classifier(maps if self._takes_all_maps else deepest)
        return deepest.mean((2, 3)), logits


@dataclass(frozen=True, slots=True)
class SegmentationPrediction(Prediction):
    """Predicted pixel classes: ``regions`` are (B, C, h, w) logits at the network's stride.

    Attributes:
        image_size: the side S of the prepared images.
    """

    image_size: int

    @property
    def logits(self) -> Tensor:
        """Class logits at the network's stride, (B, C, h, w) float32."""
        if not isinstance(self.regions, Tensor):
            raise TypeError("the regions of a segmentation must be one tensor")
        return self.regions

    @torch.inference_mode()
    def findings(self) -> list[Finding]:
        """The most probable class of each pixel of the prepared images."""
        confidences = self.logits.softmax(1).amax(1).cpu()
        return [
            Segmentation(label_map(logits, (self.image_size, self.image_size)).cpu(), confidence)
            for logits, confidence in zip(self.logits, confidences, strict=True)
        ]


class SegmentationNetwork(TaskNetwork):
    """A segmentation network for the classes of a project."""

    task = "segmentation"
    main_metric = "miou"
    defaults = Defaults(
        learning_rate=5e-3,
        fine_tuning_rate=3e-3,
        label_smoothing=0.0,
        batch_size=(4, 16),
        prediction_batch=16,
        min_epochs=30,
        max_epochs=50,
        steps=800,
        max_side=(192, 512),
        bytes_per_pixel=8192,  # deeplabv3_resnet101 in float32
    )
    module: Segmenter

    @classmethod
    def build(
        cls,
        manifest: Manifest,
        weights: Mapping[str, Tensor] | None = None,  # noqa: ARG003 — the same layers for all
    ) -> nn.Module:
        check_classes(manifest.classes)
        return Segmenter(build_segmenter(manifest.architecture, len(manifest.classes)))

    @property
    def entry(self) -> Architecture:
        return SEGMENTERS[self.manifest.architecture]

    def class_rows(self) -> Mapping[str, ClassRows]:
        heads = SEGMENTERS[self.manifest.architecture].heads
        return {f"{head}.{part}": ClassRows() for head in heads for part in ("weight", "bias")}

    def prepare_target(self, target: Tensor, height: int, width: int) -> Tensor:
        """Resize a mask to match its prepared image, taking the nearest pixel's class."""
        check_mask(target, height, width, len(self.classes))
        size = [self.image_size] * 2
        resized: Tensor = transforms.resize(target[None], size, InterpolationMode.NEAREST_EXACT)
        return resized[0]

    def count_classes(self, target: Tensor) -> Tensor:
        """The number of pixels of each class, (C,)."""
        return torch.bincount(target.flatten(), minlength=IGNORED + 1)[: len(self.classes)]

    def augment(
        self, images: Tensor, targets: Sequence[Tensor], draws: Generator
    ) -> tuple[Tensor, list[Tensor]]:
        """Scale, crop, flip and recolour, masks with their images."""
        masks = torch.stack(list(targets)).to(images.device, non_blocking=True)
        images, masks = augment_masks(images, masks, draws)
        return images, list(masks)

    def predict(self, batch: Tensor) -> SegmentationPrediction:
        """Predict logits and features of prepared images, (B, 3, S, S) uint8."""
        features, logits = self._infer_all(batch)
        return SegmentationPrediction(logits, features, self.image_size)

    @torch.inference_mode()
    def measure(self, images: Examples, stop: Callable[[], bool]) -> Metrics:
        """Measure intersection over union, accuracy, cross entropy and the confusion matrix.

        All are measured on pixels at the network's input size S; ``IGNORED`` pixels do not count.
        """
        # It brings scipy, which takes seconds, and few processes measure.
        from torchmetrics.classification import MulticlassConfusionMatrix

        confusion = MulticlassConfusionMatrix(
            len(self.classes), ignore_index=IGNORED, validate_args=False, sync_on_compute=False
        ).to(self.device)
        loss = torch.zeros((), device=self.device)
        order = torch.split(torch.arange(len(images)), self.prediction_batch_size)
        for batch, listed in images.batches(order):
            if stop():
                raise Stopped
            for logits, listed_mask in zip(self._infer(batch)[1], listed, strict=True):
                mask = listed_mask.to(self.device).long()
                loss += summed_cross_entropy(logits, mask)
                confusion.update(label_map(logits, (mask.shape[0], mask.shape[1])).long(), mask)
        found = confusion.compute().cpu()
        return pixel_metrics(
            self.classes, found, len(images), {"loss": float(loss) / max(1, int(found.sum()))}
        )

    def objective(self, class_counts: Tensor, recipe: Recipe) -> Objective:
        """Cross entropy at full size with label smoothing and class weights, as the recipe says."""
        if not class_counts.any():
            raise ModelError("There are no labelled pixels to learn from.")
        weights = torch.ones(len(self.classes))
        if recipe.class_weights:
            weights = class_weights(class_counts)
        # One entry per possible mask value; values that are not a class have weight 0.
        weights = functional.pad(weights, (0, IGNORED + 1 - len(weights))).to(self.device)
        smoothing = recipe.smoothing(self.defaults)

        def loss(images: Tensor, targets: Sequence[Tensor]) -> Tensor:
            if len(images) == 1:  # deeplabv3 normalises over one value per image
                images, targets = images.repeat(2, 1, 1, 1), [*targets, *targets]
            logits = self.module(self.normalise(images))[1].float()
            wanted = torch.stack(list(targets)).to(self.device, non_blocking=True).long()
            total = functional.cross_entropy(
                enlarge(logits, wanted.shape[1:]),
                wanted,
                weights[: len(self.classes)],
                ignore_index=IGNORED,
                reduction="sum",
                label_smoothing=smoothing,
            )
            # If all pixels are ignored, the loss is 0 and not 0 / 0.
            return total / weights[wanted].sum().clamp(min=1e-6)

        return loss

    def _infer(self, batch: Tensor) -> tuple[Tensor, Tensor | Sequence[Tensor]]:
        """Features (B, D), and the logits of each image, (C, h, w)."""
        return self._infer_all(batch)

    @torch.inference_mode()
    def _infer_all(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        with self.autocast():
            features, logits = self.module(self.normalise(batch))
        return features.float(), logits.float()


def pixel_metrics(
    classes: Sequence[str], confusion: Tensor, images: int, more: Mapping[str, float]
) -> Metrics:
    """The metrics of a segmentation.

    Args:
        classes: C names.
        confusion: the number of pixels of the row's class that were predicted as the column's,
            (C, C).
        images: how many were measured.
        more: further values by name.

    Raises:
        UnlabelledError: no pixel has a class.
    """
    counts = confusion.sum(1)
    known = counts > 0
    if not known.any():
        raise UnlabelledError("There are no labelled pixels to measure the network on.")
    right = confusion.diagonal()
    overlap = right / (counts + confusion.sum(0) - right)
    return Metrics(
        main_name=SegmentationNetwork.main_metric,
        values={
            "miou": float(overlap[known].mean()),
            "accuracy": float(right.sum() / counts.sum()),
            "macro_accuracy": float((right / counts)[known].mean()),
            **more,
        },
        per_class={
            name: ClassScore(int(counts[i]), float(overlap[i]) if known[i] else None)
            for i, name in enumerate(classes)
        },
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        images=images,
    )


def check_classes(classes: Sequence[str]) -> None:
    """Check that there are classes to tell apart, and not too many.

    Raises:
        ModelError: there are not.
    """
    if len(classes) < 2:
        raise ModelError(
            f'Segmentation needs at least two classes; there is only "{classes[0]}". '
            "Treat unlabelled pixels as background, or add a class."
        )
    if len(classes) > IGNORED:
        raise ModelError(
            f"Segmentation supports at most {IGNORED} classes; there are {len(classes)}."
        )


def check_mask(target: Tensor, height: int, width: int, classes: int) -> None:
    """Check that a mask fits its image and the network's number of classes.

    Raises:
        ModelError: it does not.
    """
    if target.dtype != torch.uint8 or target.shape != (height, width):
        raise ModelError(
            f"The mask of an image of {height} rows and {width} columns must be uint8 of that "
            f"shape, not {target.dtype} of shape {tuple(target.shape)}."
        )
    unknown = (target >= classes) & (target != IGNORED)
    if unknown.any():
        raise ModelError(
            f"A mask has the class index {int(target[unknown][0])}, but the network has "
            f"{classes} classes, counted from 0; {IGNORED} means unknown."
        )


def enlarge(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Resize logits (B, C, h, w) bilinearly to another height and width."""
    return functional.interpolate(logits, size=list(size), mode="bilinear", align_corners=False)


ROWS_AT_ONCE = 64
"""Rows of logits whose pixels are in memory at a time: all classes of a large image would fill it.
"""


def summed_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """The cross entropy of all pixels of an image, (), without those that are ``IGNORED``.

    Args:
        logits: (C, h, w) at the network's stride.
        mask: (H, W) int64.
    """
    total = torch.zeros((), device=logits.device)
    rows = logits.shape[1]
    stride, rest = divmod(mask.shape[0], rows)
    at_once = rows if rest else ROWS_AT_ONCE
    for start in range(0, rows, at_once):
        stop = min(rows, start + at_once)
        # With a row on either side, which interpolation needs.
        first, last = max(0, start - 1), min(rows, stop + 1)
        whole = (first, last) == (0, rows)
        size = mask.shape if whole else ((last - first) * stride, mask.shape[1])
        large = enlarge(logits[None, :, first:last], size)
        part = mask
        if not whole:
            large = large[:, :, (start - first) * stride : (stop - first) * stride]
            part = mask[start * stride : stop * stride]
        total += functional.cross_entropy(large, part[None], ignore_index=IGNORED, reduction="sum")
    return total
