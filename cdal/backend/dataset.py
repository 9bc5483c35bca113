"""A project's labelled images, as a network learns from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from cdal.backend.formats import Truth
from cdal.backend.image_error import ImageError
from cdal.backend.images import ImageSource, ImageStore
from cdal.backend.patience import Patience
from cdal.models import TaskNetwork

MEMORY_LIMIT = 2**30
"""Prepared images are kept in memory up to this many bytes; beyond, they are read anew."""

Example = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A task's image, and what was submitted about it."""

    task_id: int
    image: object
    truth: Truth


@dataclass(frozen=True, slots=True)
class SizedImage:
    """An image as a network takes it, with the height and width that it had before."""

    pixels: Tensor
    size: tuple[int, int]

    @classmethod
    def preparer(cls, network: TaskNetwork) -> Callable[[Tensor], SizedImage]:
        """What makes one of an image, (3, H, W) uint8, for this network."""
        return lambda image: cls(network.prepare(image), (image.shape[1], image.shape[2]))


class TaskImages:
    """Labelled images of one project; a `cdal.models.Dataset`."""

    def __init__(
        self,
        store: ImageStore,
        source: ImageSource,
        items: Sequence[LabelledImage],
        prepared: dict[int, Example] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.items = list(items)
        self._store = store
        self._source = source
        self._prepared = prepared or {}
        self._patience = patience or Patience()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int, /) -> Example:
        """An image and its target; one that is away for now is waited for.

        Raises:
            ImageError, LabelStudioError: it cannot be had, or has been away for minutes.
            Stopped: the job that waits for it is to stop.
        """
        item = self.items[index]
        known = self._prepared.get(item.task_id)
        if known is not None:
            return known
        image = self._patience.read(
            lambda: self._store.read(self._source, item.task_id, item.image)
        )
        return image, item.truth.target(image.shape[1], image.shape[2])

    def where(self, wanted: Callable[[LabelledImage], bool]) -> TaskImages:
        """Those of the images that are wanted."""
        chosen = [item for item in self.items if wanted(item)]
        return TaskImages(self._store, self._source, chosen, self._prepared, self._patience)

    def only(self, index: int) -> TaskImages:
        """One of the images."""
        one = [self.items[index]]
        return TaskImages(self._store, self._source, one, self._prepared, self._patience)

    def sizes(self, most: int) -> list[tuple[int, int]]:
        """Height and width of the first images that can be read."""
        pairs = [(item.task_id, item.image) for item in self.items[:most]]
        found = self._store.stream(
            self._source, pairs, prepare=lambda image: (image.shape[1], image.shape[2])
        )
        return [size for _, size in found if not isinstance(size, ImageError)]

    def read(
        self, network: TaskNetwork, progress: Callable[[float], None]
    ) -> tuple[TaskImages, dict[int, ImageError]]:
        """Read every image once; those that can be had, and why the others cannot, by task id."""
        pairs = [(item.task_id, item.image) for item in self.items]
        prepared: dict[int, Example] = {}
        problems: dict[int, ImageError] = {}
        used = 0
        stream = self._store.stream(self._source, pairs, prepare=SizedImage.preparer(network))
        for done, (item, (task_id, image)) in enumerate(
            zip(self.items, stream, strict=True), start=1
        ):
            if isinstance(image, ImageError):
                problems[task_id] = image
            elif used <= MEMORY_LIMIT:
                target = network.prepare_target(item.truth.target(*image.size), *image.size)
                used += image.pixels.nbytes + target.nbytes
                prepared[task_id] = image.pixels, target
            progress(done / len(pairs))
        readable = [item for item in self.items if item.task_id not in problems]
        return (
            TaskImages(self._store, self._source, readable, prepared, self._patience),
            problems,
        )
