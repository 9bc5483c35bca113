"""Inference: many images through a network, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from cdal.backend.annotations.packing import pack
from cdal.backend.images.inputs import Inputs
from cdal.models import TaskNetwork
from cdal.models.head import HeadNetwork
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


def infer(
    network: TaskNetwork, batches: Iterable[Inputs], keep: Callable[[PredictedBatch], Kept]
) -> Iterator[Kept]:
    """Predict images and yield what is kept of each batch.

    Args:
        network: the model. When its device runs out of memory, it goes on in smaller batches.
        batches: as the network takes them, see `InputReader`.
        keep: takes what is needed off the device; it may run out of memory as well.
    """
    for batch in batches:
        yield from _infer_batch(network, batch, keep)


def _infer_batch(
    network: TaskNetwork, batch: Inputs, keep: Callable[[PredictedBatch], Kept]
) -> Iterator[Kept]:
    try:
        kept = keep(PredictedBatch(batch.ids, batch.sizes, _predict(network, batch)))
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    else:
        yield kept
        return
    # Outside the handler: the exception would keep the batch's tensors in memory.
    network.halve_batches()
    for half in batch.halves():
        yield from _infer_batch(network, half, keep)


def _predict(network: TaskNetwork, batch: Inputs) -> Prediction:
    if isinstance(batch.images, Tensor):
        return network.predict(batch.images)
    assert isinstance(network, HeadNetwork)  # noqa: S101 — others are given no features
    return network.judge(batch.images)
