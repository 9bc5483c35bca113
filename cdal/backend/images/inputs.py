"""Images as networks take them: prepared pixels, or the features that the feature store keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from cdal.backend.errors import ImageError
from cdal.backend.images.store import ImageFile, ImageSource, ImageStore, address_key
from cdal.models import TaskNetwork
from cdal.models.feature_store import FeatureStore, SeenImage
from cdal.models.features import ImageFeatures
from cdal.models.head import HeadNetwork
from cdal.models.shards import KEY_BYTES

Items = Iterable[tuple[int, object]]
"""For each image, its task and the image in the task's data."""

WORKERS = 8
WORKERS_IN_TILES = 2
"""Images that are read at the same time; those that are seen in tiles stay large."""

OnProblem = Callable[[int, ImageError], None]
"""Called with the task of each image that cannot be used, and why."""


Prepared = TypeVar("Prepared")


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """A batch of B images as a network takes them.

    Attributes:
        ids: their tasks.
        contents: hashes of their files, 16 bytes each.
        sizes: their original heights and widths.
        images: prepared, (B, 3, S, S) uint8; for a head the features of each.
    """

    ids: Sequence[int]
    contents: Sequence[bytes]
    sizes: Sequence[tuple[int, int]]
    images: Tensor | Sequence[ImageFeatures]

    def __len__(self) -> int:
        return len(self.ids)

    def halves(self) -> tuple[Inputs, Inputs]:
        """The first and the second half of the batch."""
        half = len(self) // 2
        return (
            Inputs(self.ids[:half], self.contents[:half], self.sizes[:half], self.images[:half]),
            Inputs(self.ids[half:], self.contents[half:], self.sizes[half:], self.images[half:]),
        )


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A prepared image, (3, S, S) uint8, with its original height and width."""

    pixels: Tensor
    size: tuple[int, int]


class InputReader:
    """Reads images for networks; safe to use from many threads.

    Args:
        images: fetches and decodes them.
        features: keeps what backbones make of them.
        source: where the images of the project come from.
    """

    def __init__(self, images: ImageStore, features: FeatureStore, source: ImageSource) -> None:
        self._images = images
        self._features = features
        self._source = source

    def read(self, task_id: int, value: object) -> Tensor:
        """A task's image as it is; see `ImageStore.read`."""
        return self._images.read(self._source, task_id, value)

    def sizes(self, items: Items) -> list[tuple[int, int]]:
        """Height and width of those images that can be read."""
        stream = self._images.stream(
            self._source, items, prepare=lambda image: (image.shape[1], image.shape[2])
        )
        return [size for _, size in stream if not isinstance(size, ImageError)]

    def batches(
        self, network: TaskNetwork, items: Items, on_problem: OnProblem
    ) -> Iterator[Inputs]:
        """The images in batches that suit a network.

        Whole networks get them in the order of the items. For heads, those whose features are kept
        come first, without being fetched; then come the others, once the backbone has seen them.
        """
        if isinstance(network, HeadNetwork):
            yield from self._features_of(network, items, on_problem)
        else:
            yield from self._pixels_of(network, items, on_problem)

    def _pixels_of(
        self, network: TaskNetwork, items: Items, on_problem: OnProblem
    ) -> Iterator[Inputs]:
        def prepare(file: ImageFile) -> tuple[bytes, _Prepared]:
            return _content(file), file.prepared(partial(_prepare, network))

        stream = _usable(self._images.stream_files(self._source, items, prepare), on_problem)
        while batch := list(islice(stream, network.prediction_batch_size)):
            yield Inputs(
                [task_id for task_id, _ in batch],
                [content for _, (content, _) in batch],
                [image.size for _, (_, image) in batch],
                torch.stack([image.pixels for _, (_, image) in batch]),
            )

    def _features_of(
        self, network: HeadNetwork, items: Items, on_problem: OnProblem
    ) -> Iterator[Inputs]:
        unknown: list[tuple[int, object]] = []
        yield from self.kept(network, items, unknown)
        try:
            yield from self._first_look(network, unknown, on_problem)
        finally:
            self._features.flush()

    def kept(
        self, network: HeadNetwork, items: Items, unknown: list[tuple[int, object]]
    ) -> Iterator[Inputs]:
        """The images whose features are kept, in batches; the others are added to `unknown`."""
        left = iter(items)
        while some := list(islice(left, network.judged_at_once)):
            addresses = [address_key(self._source, *item) for item in some]
            contents = self._features.contents_at(addresses)
            kept = self._features.get(network.extraction, contents)
            if kept.rows:
                ids = [some[row][0] for row in kept.rows]
                of_them = [contents[row] for row in kept.rows]
                yield Inputs(ids, of_them, kept.sizes, kept.features)
            known = set(kept.rows)
            unknown += [item for row, item in enumerate(some) if row not in known]

    def keep(self, network: HeadNetwork, items: Items, seen: Inputs) -> None:
        """Keep features that were computed elsewhere; `items` are the images of `seen`."""
        of_images = zip(items, seen.contents, seen.sizes, seen.images, strict=True)
        for item, content, size, features in of_images:
            assert isinstance(features, ImageFeatures)  # noqa: S101 — a head's inputs
            self._features.note(address_key(self._source, *item), content)
            self._features.put(network.extraction, content, SeenImage(features, size))

    def flush(self) -> None:
        """Write the features that are new."""
        self._features.flush()

    def _first_look(
        self, network: HeadNetwork, items: Sequence[tuple[int, object]], on_problem: OnProblem
    ) -> Iterator[Inputs]:
        """Fetch images at addresses that nothing is known of; their contents may still be known."""

        def prepare(file: ImageFile) -> tuple[bytes, SeenImage | _Prepared]:
            content = _content(file)
            kept = self._features.get(network.extraction, [content])
            if kept.rows:
                return content, SeenImage(kept.features[0], kept.sizes[0])
            return content, file.prepared(partial(_prepare, network))

        known: list[tuple[int, bytes, SeenImage]] = []
        new: list[tuple[int, bytes, _Prepared]] = []
        workers = WORKERS if network.manifest.tile is None else WORKERS_IN_TILES
        stream = self._images.stream_files(self._source, items, prepare, workers)
        for item, (task_id, found) in zip(items, stream, strict=True):
            if isinstance(found, ImageError):
                on_problem(task_id, found)
                continue
            content, image = found
            self._features.note(address_key(self._source, *item), content)
            if isinstance(image, SeenImage):
                known.append((task_id, content, image))
            else:
                new.append((task_id, content, image))
            if len(new) >= network.prediction_batch_size:
                yield self._look(network, new)
                new = []
            if len(known) >= network.judged_at_once:
                yield _seen(known)
                known = []
        if new:
            yield self._look(network, new)
        if known:
            yield _seen(known)

    def _look(self, network: HeadNetwork, new: Sequence[tuple[int, bytes, _Prepared]]) -> Inputs:
        """Show prepared images to the backbone, and keep their features."""
        extracted = network.look([image.pixels for _, _, image in new])
        seen: list[tuple[int, bytes, SeenImage]] = []
        for (task_id, content, image), features in zip(new, extracted, strict=True):
            seen.append((task_id, content, SeenImage(features, image.size)))
            self._features.put(network.extraction, content, seen[-1][2])
        return _seen(seen)


def _prepare(network: TaskNetwork, image: Tensor) -> _Prepared:
    return _Prepared(network.prepare(image), (image.shape[1], image.shape[2]))


def _content(file: ImageFile) -> bytes:
    return file.digest[:KEY_BYTES]


def _seen(images: Sequence[tuple[int, bytes, SeenImage]]) -> Inputs:
    return Inputs(
        [task_id for task_id, _, _ in images],
        [content for _, content, _ in images],
        [image.size for _, _, image in images],
        [image.features for _, _, image in images],
    )


def _usable(
    stream: Iterable[tuple[int, Prepared | ImageError]], on_problem: OnProblem
) -> Iterator[tuple[int, Prepared]]:
    for task_id, found in stream:
        if isinstance(found, ImageError):
            on_problem(task_id, found)
        else:
            yield task_id, found
