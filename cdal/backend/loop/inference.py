"""Inference on the images of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cdal.backend.annotations.packing import pack
from cdal.backend.images.inputs import Inputs
from cdal.backend.loop.pool_scores import Scores
from cdal.mixture_kind import MixtureKind
from cdal.models import TaskNetwork, inference
from cdal.models.predictions import Prediction


@dataclass(frozen=True, slots=True)
class PredictedBatch:
    """What a network predicts for B images.

    Attributes:
        ids: the images' numbers.
        sizes: their original heights and widths.
        prediction: on the network's device.
    """

    ids: Sequence[int]
    sizes: Sequence[tuple[int, int]]
    prediction: Prediction

    def findings(self) -> list[dict[str, Any]]:
        """The finding for each image, packed for the store."""
        return list(map(pack, self.prediction.findings(), self.sizes))


Kept = TypeVar("Kept")

Scored = tuple[Scores, list[dict[str, Any]]]
"""The scores of some images, and their packed findings in the same order."""


def infer(
    network: TaskNetwork, batches: Iterable[Inputs], keep: Callable[[PredictedBatch], Kept]
) -> Iterator[Kept]:
    """Predict images and yield what is kept of each batch; see `cdal.models.inference`."""

    def keep_of(batch: Inputs, prediction: Prediction) -> Kept:
        return keep(PredictedBatch(batch.ids, batch.sizes, prediction))

    return inference.infer(network, batches, keep_of)


def score_images(
    network: TaskNetwork, batches: Iterable[Inputs], kind: MixtureKind
) -> Iterator[Scored]:
    """Scores of images, a batch at a time; little of what a network says leaves the device.

    Args:
        network: the model.
        batches: see `infer`.
        kind: of the class mixtures.
    """

    def keep(batch: PredictedBatch) -> Scored:
        return Scores.of(batch.ids, batch.prediction, kind), batch.findings()

    return infer(network, batches, keep)
