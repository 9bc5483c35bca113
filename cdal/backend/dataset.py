"""A project's labelled images, as a network learns from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cdal.backend.images import ImageError, ImageSource, ImageStore

MEMORY_LIMIT = 2**30
"""Prepared images are kept in memory up to this many bytes; beyond, they are read anew."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A task's image and its class, as an index into the labeling config's labels."""

    task_id: int
    image: object
    target: int


class TaskImages:
    """Labelled images of one project; a `cdal.models.Dataset`."""

    def __init__(
        self,
        store: ImageStore,
        source: ImageSource,
        items: Sequence[LabelledImage],
        prepared: dict[int, Tensor] | None = None,
    ) -> None:
        self.items = list(items)
        self._store = store
        self._source = source
        self._prepared = prepared or {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int, /) -> tuple[Tensor, int]:
        item = self.items[index]
        image = self._prepared.get(item.task_id)
        if image is None:
            image = self._store.read(self._source, item.task_id, item.image)
        return image, item.target

    def where(self, wanted: Callable[[LabelledImage], bool]) -> TaskImages:
        """Those of the images that are wanted."""
        chosen = [item for item in self.items if wanted(item)]
        return TaskImages(self._store, self._source, chosen, self._prepared)

    def sizes(self, most: int) -> list[tuple[int, int]]:
        """Height and width of the first images that can be read."""
        pairs = [(item.task_id, item.image) for item in self.items[:most]]
        images = self._store.stream(self._source, pairs)
        return [
            (image.shape[1], image.shape[2])
            for _, image in images
            if not isinstance(image, ImageError)
        ]

    def read(
        self, prepare: Callable[[Tensor], Tensor], progress: Callable[[float], None]
    ) -> tuple[TaskImages, dict[int, str]]:
        """Read every image once; those that can be had, and why the others cannot, by task id."""
        pairs = [(item.task_id, item.image) for item in self.items]
        prepared: dict[int, Tensor] = {}
        problems: dict[int, str] = {}
        size = 0
        for done, (task_id, image) in enumerate(
            self._store.stream(self._source, pairs, prepare=prepare), start=1
        ):
            if isinstance(image, ImageError):
                problems[task_id] = image.reason
            else:
                size += image.numel()
                if size <= MEMORY_LIMIT:
                    prepared[task_id] = image.to(torch.uint8)
            progress(done / len(pairs))
        readable = [item for item in self.items if item.task_id not in problems]
        return TaskImages(self._store, self._source, readable, prepared), problems
