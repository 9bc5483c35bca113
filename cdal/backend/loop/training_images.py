"""The labelled images of a project as a data set: read once, and kept as a network sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from cdal.backend.annotations import Truth
from cdal.backend.annotations.masks import MajorityTruth, MaskTruth
from cdal.backend.errors import ImageError
from cdal.backend.images.inputs import InputReader
from cdal.backend.images.retry import Patience
from cdal.backend.loop.near_duplicates import originals_of
from cdal.models import Dataset, TaskNetwork
from cdal.models.data import PreparedImages
from cdal.models.features import ImageFeatures, LabelledFeatures
from cdal.models.head import HeadNetwork

MOST_COMPARED = 5000
"""Labelled images among which near-duplicates are looked for; with more, it takes seconds."""


PIXELS = (MaskTruth, MajorityTruth)
"""What annotations say about pixels."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A task's image, and what was submitted about it.

    Attributes:
        content: a hash of the image's file, 16 bytes; empty until it was read.
        twin: the content of the image of which it is a near-duplicate; empty if that is not known.
    """

    task_id: int
    image: object
    truth: Truth
    content: bytes = b""
    twin: bytes = b""

    @property
    def group(self) -> bytes:
        """What it has in common with its near-duplicates alone: the content of their first."""
        return self.twin or self.content


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
        reader: reads the project's images.
        items: the images and their labels.
        patience: waits for images that are away for a moment.
        prepared: the same images, prepared by `read`.
    """

    def __init__(
        self,
        reader: InputReader,
        items: Sequence[LabelledImage],
        patience: Patience | None = None,
        prepared: PreparedImages | LabelledFeatures | None = None,
    ) -> None:
        self.items = list(items)
        self._reader = reader
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
        image = self._patience.read(lambda: self._reader.read(item.task_id, item.image))
        return image, item.truth.target(image.shape[1], image.shape[2])

    def where(self, wanted: Callable[[LabelledImage], bool]) -> TrainingImages:
        """The images for which `wanted` holds."""
        return self.take([index for index, item in enumerate(self.items) if wanted(item)])

    def take(self, indices: Sequence[int]) -> TrainingImages:
        """Some of the images, in this order."""
        return TrainingImages(
            self._reader,
            [self.items[index] for index in indices],
            self._patience,
            None if self._prepared is None else self._prepared.take(indices),
        )

    def sizes(self, most: int) -> list[tuple[int, int]]:
        """Height and width of the first images, at most so many, that can be read."""
        return self._reader.sizes((item.task_id, item.image) for item in self.items[:most])

    def read(self, network: TaskNetwork, progress: Callable[[float], None]) -> ReadImages:
        """Read every image once, without waiting for any, and prepare it for a network.

        For a head, images whose features are kept are not even fetched.
        """
        return self._labelled_for(network)._read(network, progress)

    def _read(self, network: TaskNetwork, progress: Callable[[float], None]) -> ReadImages:
        index_of = {item.task_id: index for index, item in enumerate(self.items)}
        prepared = _Prepared(self, network)
        readable: list[int] = []
        problems: dict[int, ImageError] = {}
        left_out: dict[int, tuple[str, ...]] = {}
        sizes: dict[int, tuple[int, int]] = {}
        contents: dict[int, bytes] = {}

        def tell() -> None:
            progress((len(sizes) + len(problems)) / len(self.items))

        def problem(task_id: int, why: ImageError) -> None:
            problems[task_id] = why
            tell()

        items = [(item.task_id, item.image) for item in self.items]
        for batch in self._reader.batches(network, items, problem):
            of_batch = zip(batch.ids, batch.contents, batch.sizes, batch.images, strict=True)
            for task_id, content, size, image in of_batch:
                index, sizes[task_id] = index_of[task_id], size
                contents[index] = content
                target, wrong = self.items[index].truth.fit(*size)
                if wrong:
                    left_out[task_id] = tuple(wrong)
                tell()
                if target is None:
                    continue
                target = network.prepare_target(target, *size)
                readable.append(index)
                prepared.put(index, image, target)
        readable.sort()
        some = self.take(readable)
        twins = prepared.twins(network, readable)
        some.items = [
            replace(item, content=contents[index], twin=contents[twin])
            for index, twin, item in zip(readable, twins, some.items, strict=True)
        ]
        some._prepared = prepared.take(readable)
        return ReadImages(some, problems, left_out, sizes)

    def prepared_for(self, network: TaskNetwork) -> Dataset | LabelledFeatures:
        """The images as `read` prepared them; as they are if the network needs something else."""
        prepared = self._prepared
        if isinstance(network, HeadNetwork):
            if isinstance(prepared, LabelledFeatures) and prepared.extraction == network.extraction:
                return prepared
        elif isinstance(prepared, PreparedImages) and (
            prepared.image_size,
            prepared.with_objects,
        ) == (network.image_size, network.learns_objects):
            return prepared
        return self._labelled_for(network)

    @property
    def _with_objects(self) -> bool:
        """Whether the labels say which pixels are of the same object."""
        return any(isinstance(i.truth, PIXELS) and i.truth.numbered for i in self.items)

    def _labelled_for(self, network: TaskNetwork) -> TrainingImages:
        """The images as they are, with labels that say what this network learns."""
        numbered = network.learns_objects
        if self._with_objects == numbered:
            return self
        items = [
            replace(item, truth=item.truth.with_objects(numbered))
            if isinstance(item.truth, PIXELS)
            else item
            for item in self.items
        ]
        return TrainingImages(self._reader, items, self._patience)


class _Prepared:
    """Gathers what a network is to learn from: pixels for a whole network, features for a head."""

    def __init__(self, images: TrainingImages, network: TaskNetwork) -> None:
        self._extraction = network.extraction if isinstance(network, HeadNetwork) else None
        self._pixels = PreparedImages(images, network)
        self._seen: dict[int, tuple[ImageFeatures, Tensor]] = {}

    def put(self, index: int, image: Tensor | ImageFeatures, target: Tensor) -> None:
        if isinstance(image, Tensor):
            self._pixels.put(index, image, target)
        else:
            self._seen[index] = image, target

    def twins(self, network: TaskNetwork, rows: Sequence[int]) -> list[int]:
        """Of each row, the first that it is a near-duplicate of, or itself; by kept features."""
        if not isinstance(network, HeadNetwork) or not 1 < len(rows) <= MOST_COMPARED:
            return list(rows)
        vectors = network.vectors([self._seen[row][0] for row in rows])
        originals = originals_of(vectors)
        found = zip(rows, originals, strict=True)
        return [row if original is None else rows[original] for row, original in found]

    def take(self, rows: Sequence[int]) -> PreparedImages | LabelledFeatures:
        if self._extraction is None:
            return self._pixels.take(rows)
        seen = [self._seen[row] for row in rows]
        return LabelledFeatures(self._extraction, [f for f, _ in seen], [t for _, t in seen])
