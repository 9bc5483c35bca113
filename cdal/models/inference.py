"""Inference: many images through a network, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from cdal.models.features import ImageFeatures
from cdal.models.head import HeadNetwork
from cdal.models.network import TaskNetwork
from cdal.models.predictions import Prediction


class Batch(Protocol):
    """B images as a network takes them."""

    @property
    def images(self) -> Tensor | Sequence[ImageFeatures]:
        """Prepared, (B, 3, S, S) uint8; for a head the features of each."""
        ...

    def __len__(self) -> int: ...

    def halves(self) -> tuple[Self, Self]:
        """The first and the second half of the batch."""
        ...


SomeBatch = TypeVar("SomeBatch", bound=Batch)
Kept = TypeVar("Kept")


def infer(
    network: TaskNetwork,
    batches: Iterable[SomeBatch],
    keep: Callable[[SomeBatch, Prediction], Kept],
) -> Iterator[Kept]:
    """Predict images and yield what is kept of each batch.

    Args:
        network: the model. When its device runs out of memory, it goes on in smaller batches.
        batches: in any order and of any size.
        keep: takes what is needed of a prediction; it may run out of memory as well.
    """
    for batch in batches:
        yield from _infer_batch(network, batch, keep)


def _infer_batch(
    network: TaskNetwork, batch: SomeBatch, keep: Callable[[SomeBatch, Prediction], Kept]
) -> Iterator[Kept]:
    try:
        kept = keep(batch, predict(network, batch.images))
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


def predict(network: TaskNetwork, images: Tensor | Sequence[ImageFeatures]) -> Prediction:
    """What a network says about images: see ``Batch``."""
    if isinstance(images, Tensor):
        return network.predict(images)
    assert isinstance(network, HeadNetwork)  # noqa: S101 — others are given no features
    return network.judge(images)
