"""A set of labelled images, and its split into training and test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from torch import Tensor

from cdal.datasets.pixels import decode, upright_size
from cdal.datasets.sources import Source

SPLITS = ("train", "val", "test")
TEST_SHARE = 0.25
"""The share of examples that is held back for testing if the files define no test split."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One labelled image, whose files are read only on request.

    Attributes:
        name: the name of the image file in its source, unique within its set.
        is_test: whether it serves to measure and never to learn.
        source: the source of its files.
        read_target: reads the target of the example.
    """

    name: str
    is_test: bool
    source: Source
    read_target: Callable[[Example], Tensor]

    def image(self) -> bytes:
        """The bytes of the image file.

        Raises:
            DatasetError: the file cannot be read, or is too large.
        """
        return self.source.read(self.name)

    def pixels(self) -> Tensor:
        """The upright image, (3, H, W) uint8.

        Raises:
            DatasetError: the file cannot be read or decoded.
        """
        return decode(self.image(), self.source.where(self.name))

    def size(self) -> tuple[int, int]:
        """Height and width of the upright image.

        Raises:
            DatasetError: the file cannot be read, or is not an image.
        """
        return upright_size(self.image(), self.source.where(self.name))

    def target(self) -> Tensor:
        """The image's target, as ``cdal.models.predictions`` describes it, for the upright image.

        Raises:
            DatasetError: a file with labels cannot be read.
        """
        return self.read_target(self)


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Labelled images for one task.

    Attributes:
        task: "classification", "segmentation", "detection" or "multilabel".
        classes: the class names; targets are indices into them.
        examples: sorted by name.
    """

    task: str
    classes: tuple[str, ...]
    examples: tuple[Example, ...]

    @property
    def train(self) -> tuple[Example, ...]:
        """The training examples."""
        return tuple(example for example in self.examples if not example.is_test)

    @property
    def test(self) -> tuple[Example, ...]:
        """The test examples."""
        return tuple(example for example in self.examples if example.is_test)


def test_split(splits: Sequence[str | None]) -> str | None:
    """The split that serves as test split: "test", or else "val", or None without either."""
    return next((name for name in ("test", "val") if name in splits), None)


def hold_back(examples: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """Sort examples by name; if none is a test example, make a random share test examples."""
    ordered = sorted(examples, key=lambda example: example.name)
    if any(example.is_test for example in ordered):
        return tuple(ordered)
    count = round(len(ordered) * TEST_SHARE)
    test = set(Random(seed).sample(range(len(ordered)), count))  # noqa: S311 — not for secrets
    return tuple(replace(example, is_test=row in test) for row, example in enumerate(ordered))
