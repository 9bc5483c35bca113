"""A data set whose labels are all known: a pool to label, and test images to measure on."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cdal.benchmark.errors import BenchmarkError
from cdal.datasets import DatasetError, LabelledImages, open_images
from cdal.models import BACKGROUND, Dataset


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Labelled images with their names; a ``cdal.models.Dataset``.

    Attributes:
        names: the images' names, all different.
        images: the images and targets, in the order of the names.
    """

    names: tuple[str, ...]
    images: Dataset

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        return self.images[index]

    def drawn(self, count: int | None, seed: int = 0) -> Part:
        """A random sample in the original order; all images if there are no more than ``count``."""
        if count is None or count >= len(self):
            return self
        rows = sorted(random.Random(seed).sample(range(len(self)), count))  # noqa: S311 — no secret
        return Part(tuple(self.names[row] for row in rows), _Rows(self.images, rows))


@dataclass(frozen=True, slots=True)
class DataSet:
    """The data of a simulation.

    Attributes:
        task: "classification", "segmentation", "detection" or "multilabel".
        classes: of the network; targets are indices into them.
        pool: training images, whose labels are hidden at first.
        test: images to measure on.
        difficult: for detection by VOC's rules, the objects of the test images that do not count,
            with the same names.
    """

    task: str
    classes: tuple[str, ...]
    pool: Part
    test: Part
    difficult: Part | None = None

    def __post_init__(self) -> None:
        for part, what in ((self.pool, "training"), (self.test, "test")):
            if len(part) == 0:
                raise DatasetError(f"There are no {what} images.")

    def limited(self, pool: int | None, test: int | None) -> DataSet:
        """A random part of the images, the same in every call."""
        difficult = None if self.difficult is None else self.difficult.drawn(test)
        return DataSet(
            self.task, self.classes, self.pool.drawn(pool), self.test.drawn(test), difficult
        )

    @property
    def fingerprint(self) -> str:
        """A hash of the classes and the images' names."""
        names = json.dumps([self.classes, self.pool.names, self.test.names])
        return hashlib.sha256(names.encode()).hexdigest()[:16]


class _Rows:
    """Some rows of a data set."""

    def __init__(self, images: Dataset, rows: Sequence[int]) -> None:
        self._images = images
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        return self._images[self._rows[index]]


def open_data_set(path: Path, task: str | None, unlabelled: str) -> DataSet:
    """Open the labelled images of a folder or zip; see ``cdal.datasets``.

    Args:
        path: of the folder or zip.
        task: the required task; None for any.
        unlabelled: for segmentation: pixels without a class are "background", a class of their
            own, or nothing is learnt from them ("ignore").

    Raises:
        DatasetError: there are no labelled images.
        BenchmarkError: ``unlabelled`` has no effect on these images.
    """
    images = open_images(path, task)
    classes = images.classes
    if unlabelled == "background":
        if images.task != "segmentation":
            raise BenchmarkError(
                f"--unlabelled has no effect: {path} is for {images.task}, where there are no "
                "unlabelled pixels."
            )
        classes = (*classes, BACKGROUND)
    pool, test = (
        Part(tuple(e.name for e in examples), LabelledImages(images, examples, classes))
        for examples in (images.train, images.test)
    )
    return DataSet(images.task, classes, pool, test)
