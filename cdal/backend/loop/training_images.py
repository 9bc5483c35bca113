"""The labelled images of a project as a data set: read once, and kept as a network sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from cdal.backend.annotations import Truth
from cdal.backend.errors import ImageError
from cdal.backend.images.retry import Patience
from cdal.backend.images.store import ImageSource, ImageStore
from cdal.backend.loop.inference import SizedImage
from cdal.models import Dataset, TaskNetwork
from cdal.models.data import PreparedImages


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A task's image, and what was submitted about it."""

    task_id: int
    image: object
    truth: Truth


@dataclass(frozen=True, slots=True)
class ReadImages:
    """What reading the labelled images gave, by task id.

    Attributes:
        images: those that a network can learn from, prepared for it.
        problems: why others cannot be read.
        left_out: what is wrong with regions that proved unreadable at their image's size.
        sizes: heights and widths of the images.
    """

    images: TrainingImages
    problems: dict[int, ImageError]
    left_out: dict[int, tuple[str, ...]]
    sizes: dict[int, tuple[int, int]]


class TrainingImages:
    """Labelled images of one project; a `cdal.models.Dataset` of the images as they are.

    Args:
        store: reads the images.
        source: where the project's images come from.
        items: the images and their labels.
        patience: waits for images that are away for a moment.
        prepared: the same images, prepared by `read`.
    """

    def __init__(
        self,
        store: ImageStore,
        source: ImageSource,
        items: Sequence[LabelledImage],
        patience: Patience | None = None,
        prepared: PreparedImages | None = None,
    ) -> None:
        self.items = list(items)
        self._store = store
        self._source = source
        self._patience = patience or Patience()
        self._prepared = prepared

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        """An image, (3, H, W) uint8, and its target; waits for one that is away for a moment.

        Raises:
            ImageError, LabelStudioError: it cannot be read, or has been away for minutes.
            Stopped: the job that waits for it is to stop.
        """
        item = self.items[index]
        image = self._patience.read(
            lambda: self._store.read(self._source, item.task_id, item.image)
        )
        return image, item.truth.target(image.shape[1], image.shape[2])

    def where(self, wanted: Callable[[LabelledImage], bool]) -> TrainingImages:
        """The images for which `wanted` holds."""
        return self.take([index for index, item in enumerate(self.items) if wanted(item)])

    def take(self, indices: Sequence[int]) -> TrainingImages:
        """Some of the images, in this order."""
        return TrainingImages(
            self._store,
            self._source,
            [self.items[index] for index in indices],
            self._patience,
            None if self._prepared is None else self._prepared.take(indices),
        )

    def sizes(self, most: int) -> list[tuple[int, int]]:
        """Height and width of the first images, at most so many, that can be read."""
        pairs = [(item.task_id, item.image) for item in self.items[:most]]
        found = self._store.stream(
            self._source, pairs, prepare=lambda image: (image.shape[1], image.shape[2])
        )
        return [size for _, size in found if not isinstance(size, ImageError)]

    def read(self, network: TaskNetwork, progress: Callable[[float], None]) -> ReadImages:
        """Read every image once, without waiting for any, and prepare it for a network."""
        pairs = [(item.task_id, item.image) for item in self.items]
        prepared = PreparedImages(self, network)
        problems: dict[int, ImageError] = {}
        left_out: dict[int, tuple[str, ...]] = {}
        sizes: dict[int, tuple[int, int]] = {}
        readable: list[int] = []
        stream = self._store.stream(self._source, pairs, prepare=SizedImage.preparer(network))
        for index, (task_id, image) in enumerate(stream):
            if isinstance(image, ImageError):
                problems[task_id] = image
            else:
                sizes[task_id] = image.size
                target, wrong = self.items[index].truth.fit(*image.size)
                if wrong:
                    left_out[task_id] = tuple(wrong)
                if target is not None:
                    prepared.put(index, image.pixels, network.prepare_target(target, *image.size))
                    readable.append(index)
            progress((index + 1) / len(pairs))
        everything = TrainingImages(self._store, self._source, self.items, self._patience, prepared)
        return ReadImages(everything.take(readable), problems, left_out, sizes)

    def prepared_for(self, network: TaskNetwork) -> Dataset:
        """The images as `read` prepared them, or as they are if the network needs another size."""
        if self._prepared is None or self._prepared.image_size != network.image_size:
            return self
        return self._prepared
