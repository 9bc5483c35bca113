"""The data of a simulation in memory: prepared images, or what a frozen backbone made of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cdal.benchmark.data_set import DataSet
from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.shape import fitted
from cdal.models import BACKGROUND, Dataset, TaskNetwork
from cdal.models.data import LOADER_THREADS, Example, PreparedImages
from cdal.models.feature_store import FeatureStore, SeenImage
from cdal.models.features import ImageFeatures, LabelledFeatures, VectorFeatures, image_key
from cdal.models.head import HeadNetwork
from cdal.models.network import check_image
from cdal.models.segmentation.network import check_mask

DEVICE_SHARE = 0.4
"""The share of a device's free memory that images may use; the rest is for training."""
MEMORY_SHARE = 0.7
"""The share of the machine's memory that they may use."""


class LoadedImages(PreparedImages):
    """Prepared images with their targets; each file is read once.

    Unlike those of ``cdal.models`` they have no size limit, and parts of them share memory.

    Args:
        images: (N, 3, H, W) uint8, on any device.
        targets: of the N images, as the network prepares them.
        counts: how often each class occurs in each target, (N, C) int64.
        rows: the images that belong to this part, in this order; None for all.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Sequence[Tensor],
        counts: Tensor,
        rows: Tensor | None = None,
    ) -> None:
        self._images = images
        self._targets = list(targets)
        self._counts = counts
        self._rows = torch.arange(len(images)) if rows is None else rows

    @classmethod
    def read(
        cls,
        data: Dataset,
        network: TaskNetwork,
        progress: Callable[[float], None] = lambda _: None,
        shape: tuple[int, int] | None = None,
    ) -> LoadedImages:
        """Read all images of a data set and prepare them for a network.

        Args:
            data: the images.
            network: that they are prepared for.
            progress: called with the share that is read.
            shape: for segmentation: rows and columns of the prepared images, which keep their
                aspect ratio; None for the network's square.

        Raises:
            BenchmarkError: they do not fit into this machine's memory.
            DatasetError: a file cannot be read.
        """
        rows, columns = shape or (network.image_size, network.image_size)
        count = len(data)
        device = _where_they_fit(count * 3 * rows * columns, network.task, network.device)
        images = torch.empty((count, 3, rows, columns), dtype=torch.uint8, device=device)
        targets: list[Tensor] = []
        # Masks are as large as images; small targets are read number by number, on the CPU.
        keep = device if network.task == "segmentation" else torch.device("cpu")

        counts: list[Tensor] = []
        with _threads() as pool:
            examples = pool.map(lambda row: _prepared(network, *data[row], shape), range(count))
            for row, (image, target) in enumerate(examples):
                images[row] = image
                targets.append(target.to(keep))
                counts.append(network.count_classes(target).long())
                progress((row + 1) / count)
        return cls(images, targets, torch.stack(counts))

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self._images.device

    @property
    def class_counts(self) -> Tensor:
        """How often each class occurs in the targets, (C,) float64."""
        return self.counts.sum(0).double()

    @property
    def counts(self) -> Tensor:
        """How often each class occurs in each target, (N, C) int64, on the CPU."""
        return self._counts[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> Example:
        row = int(self._rows[index])
        return self._images[row], self._targets[row]

    def load(self, progress: Callable[[float], None], stop: Callable[[], bool]) -> None:
        """Do nothing: they are already loaded."""

    def batches(self, order: Sequence[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Images (B, 3, H, W) uint8 and their targets for each tensor of indices in ``order``."""
        for indices in order:
            rows = self._rows[indices]
            yield self._images[rows.to(self.device)], [self._targets[r] for r in rows.tolist()]

    def take(self, rows: Sequence[int]) -> LoadedImages:
        """Some of the images, in this order."""
        chosen = self._rows[torch.tensor(list(rows), dtype=torch.int64)]
        return LoadedImages(self._images, self._targets, self._counts, chosen)

    def relabelled(
        self, change: Callable[[int, Tensor], Tensor], count_classes: Callable[[Tensor], Tensor]
    ) -> LoadedImages:
        """The same images with other targets.

        Args:
            change: takes the row among all loaded images and its target; returns the new target.
            count_classes: the network's method.
        """
        targets, counts = list(self._targets), self._counts.clone()
        for row in self._rows.tolist():
            targets[row] = change(row, targets[row])
            counts[row] = count_classes(targets[row]).cpu()
        return LoadedImages(self._images, targets, counts, self._rows)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedFeatures(LabelledFeatures):
    """What a frozen backbone made of images, with their targets.

    Attributes:
        counts: how often each class occurs in each target, (N, C) int64.
        rows: the row of each image among all that were read.
    """

    counts: Tensor
    rows: Sequence[int]

    @classmethod
    def read(
        cls,
        data: Dataset,
        network: HeadNetwork,
        store: FeatureStore,
        progress: Callable[[float], None] = lambda _: None,
    ) -> LoadedFeatures:
        """Read all images, and show the backbone those whose features are not in the store.

        Raises:
            BenchmarkError: the features do not fit into this machine's memory.
            DatasetError: a file cannot be read.
        """
        found: list[ImageFeatures] = []
        targets: list[Tensor] = []

        def read(row: int) -> tuple[Tensor, Tensor]:
            image, target = data[row]
            return image, network.prepare_target(target, image.shape[1], image.shape[2])

        with _threads() as pool:
            for rows in torch.split(torch.arange(len(data)), network.prediction_batch_size):
                examples = list(pool.map(read, rows.tolist()))
                found += _features([image for image, _ in examples], network, store)
                targets += [target for _, target in examples]
                if len(found) == len(rows):
                    _check_memory(found[0].bytes * len(data))
                progress(len(found) / len(data))
        store.flush()
        counts = torch.stack([network.count_classes(target).long() for target in targets])
        return cls(network.extraction, _together(found), targets, counts, range(len(data)))

    def take(self, rows: Sequence[int]) -> LoadedFeatures:
        """The images of these rows, in this order."""
        some = LabelledFeatures.take(self, rows)
        return LoadedFeatures(
            some.extraction,
            some.features,
            some.targets,
            self.counts[torch.tensor(list(rows), dtype=torch.int64)],
            [self.rows[row] for row in rows],
        )

    def relabelled(
        self, change: Callable[[int, Tensor], Tensor], count_classes: Callable[[Tensor], Tensor]
    ) -> LoadedFeatures:
        """The same images with other targets; see ``LoadedImages.relabelled``."""
        targets = [change(row, target) for row, target in zip(self.rows, self.targets, strict=True)]
        counts = torch.stack([count_classes(target).long() for target in targets])
        return LoadedFeatures(self.extraction, self.features, targets, counts, self.rows)


Loaded = LoadedImages | LoadedFeatures
"""Images for a network that is trained in full, or features for a head."""


@dataclass(frozen=True)
class LoadedData:
    """A data set with its images in memory, and where to compute.

    Attributes:
        data: the images' names, and the classes.
        pool: the training images, in the order of their names.
        test: the test images.
        device: where networks run.
        difficult: the prepared objects of each test image that do not count, if there are such.
    """

    data: DataSet
    pool: Loaded
    test: Loaded
    device: torch.device
    difficult: Sequence[Tensor] | None = None

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each image of the pool, by name."""
        return {name: row for row, name in enumerate(self.data.pool.names)}

    @property
    def annotated(self) -> int:
        """The number of classes that annotators label: all but the background."""
        return len(self.data.classes) - (BACKGROUND in self.data.classes)

    @property
    def counts(self) -> Tensor:
        """How often each annotated class occurs in each image of the pool, (N, C)."""
        return self.pool.counts[:, : self.annotated]

    def occurring(self) -> list[dict[int, int]]:
        """``counts`` without the zeros: for each image, the count of each class in it."""
        return [
            {index: round(count) for index, count in enumerate(row) if count}
            for row in self.counts.tolist()
        ]

    def names(self, rows: list[int]) -> list[str]:
        """The names of these images of the pool."""
        return [self.data.pool.names[row] for row in rows]


def _prepared(
    network: TaskNetwork, image: Tensor, target: Tensor, shape: tuple[int, int] | None
) -> Example:
    if shape is None:
        return network.prepare_example(image, target)
    check_image(image)
    check_mask(target, image.shape[1], image.shape[2], len(network.classes))
    return fitted(image, target, shape)


def _where_they_fit(image_bytes: int, task: str, device: torch.device) -> torch.device:
    needed = image_bytes * (4 if task == "segmentation" else 3) // 3
    if device.type == "cuda" and needed <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return device
    _check_memory(needed)
    return torch.device("cpu")


def _check_memory(needed: int) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > MEMORY_SHARE * memory:
        raise BenchmarkError(
            f"The images need {needed / 2**30:.1f} GiB of this machine's {memory / 2**30:.1f} GiB "
            "of memory; use fewer with --limit, or smaller ones with --image-size."
        )


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that read images; what has not begun is dropped at the end."""
    pool = ThreadPoolExecutor(LOADER_THREADS)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _features(
    images: Sequence[Tensor], network: HeadNetwork, store: FeatureStore
) -> list[ImageFeatures]:
    """The features of images as they are in their files, (3, H, W) uint8 each."""
    keys = [image_key(image, "") for image in images]
    kept = store.get(network.extraction, keys)
    found = dict(zip(kept.rows, kept.features, strict=True))
    new = [row for row in range(len(images)) if row not in found]
    if new:
        seen = network.look([network.prepare(images[row]) for row in new])
        for row, features in zip(new, seen, strict=True):
            size = images[row].shape[1], images[row].shape[2]
            store.put(network.extraction, keys[row], SeenImage(features, size))
            found[row] = features
    return [found[row] for row in range(len(images))]


def _together(features: Sequence[ImageFeatures]) -> Sequence[ImageFeatures]:
    """The same features; vectors as one tensor, from which rows are read at once."""
    if any(len(image.maps) > 1 or image.maps[0].ndim > 1 for image in features):
        return features
    vectors = torch.stack([image.maps[0] for image in features])
    return VectorFeatures(vectors, features[0].content)
