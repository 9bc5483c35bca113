"""Inference: many images through a network, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from cdal.backend.annotations.packing import pack
from cdal.backend.errors import ImageError
from cdal.models import TaskNetwork
from cdal.models.predictions import Prediction


@dataclass(frozen=True, slots=True)
class SizedImage:
    """An image as a network takes it, (3, S, S) uint8, with its original height and width."""

    pixels: Tensor
    size: tuple[int, int]

    @classmethod
    def preparer(cls, network: TaskNetwork) -> Callable[[Tensor], SizedImage]:
        """A function that prepares an image, (3, H, W) uint8, for this network."""
        return lambda image: cls(network.prepare(image), (image.shape[1], image.shape[2]))


ImagesOrProblems = Iterable[tuple[int, SizedImage | ImageError]]
"""Each image by its number, or why it cannot be used."""


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
    network: TaskNetwork,
    images: ImagesOrProblems,
    keep: Callable[[PredictedBatch], Kept],
    on_problem: Callable[[int, ImageError], None],
) -> Iterator[Kept]:
    """Predict images and yield what is kept of each batch.

    Args:
        network: the model. When its device runs out of memory, it goes on in smaller batches.
        images: prepared by `SizedImage.preparer`.
        keep: takes what is needed off the device; it may run out of memory as well.
        on_problem: called for each image that cannot be used.
    """
    for ids, batch in _batches(network, images, on_problem):
        yield from _infer_batch(network, ids, batch, keep)


def _infer_batch(
    network: TaskNetwork,
    ids: Sequence[int],
    batch: Sequence[SizedImage],
    keep: Callable[[PredictedBatch], Kept],
) -> Iterator[Kept]:
    try:
        prediction = network.predict(torch.stack([image.pixels for image in batch]))
        kept = keep(PredictedBatch(ids, [image.size for image in batch], prediction))
    except torch.OutOfMemoryError:
        if len(ids) == 1:
            raise
    else:
        yield kept
        return
    # Outside the handler: the exception would keep the batch's tensors in memory.
    network.halve_batches()
    half = len(ids) // 2
    yield from _infer_batch(network, ids[:half], batch[:half], keep)
    yield from _infer_batch(network, ids[half:], batch[half:], keep)


def _batches(
    network: TaskNetwork, images: ImagesOrProblems, on_problem: Callable[[int, ImageError], None]
) -> Iterator[tuple[list[int], list[SizedImage]]]:
    ids: list[int] = []
    batch: list[SizedImage] = []
    for number, image in images:
        if isinstance(image, ImageError):
            on_problem(number, image)
            continue
        ids.append(number)
        batch.append(image)
        if len(ids) >= network.prediction_batch_size:
            yield ids, batch
            ids, batch = [], []
    if ids:
        yield ids, batch
