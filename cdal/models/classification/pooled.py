"""Heads on the pooled features of a frozen backbone: a linear layer for one vector per image."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from cdal.models.architecture import Defaults
from cdal.models.class_rows import ClassRows
from cdal.models.classification.logistic import ITERATIONS
from cdal.models.classification.network import check_classes
from cdal.models.features import ImageFeatures, VectorFeatures
from cdal.models.head import HeadNetwork
from cdal.models.manifest import Manifest
from cdal.models.recipe import Plan, Recipe

VECTORS_AT_ONCE = 1024


class PooledHead(HeadNetwork):
    """A linear layer on the pooled features of images; what its outputs mean is the task's."""

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

    def vectors(self, features: Sequence[ImageFeatures]) -> Tensor:
        if isinstance(features, VectorFeatures):
            return features.vectors.float()
        return torch.stack([image.maps[0] for image in features]).float()

    def plan(self, recipe: Recipe, images: int) -> Plan:  # noqa: ARG002 — nothing of it applies
        """All images in each of the iterations, of which there are as many as it takes."""
        return Plan(1, images, 1, 1.0, mixed_precision=False)

    def new_head(self) -> Self:
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
