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
    """One labelled image; nothing of it is read before it is asked for.

    Attributes:
        name: of the image's file in its source, unique in its set.
        is_test: whether it is to measure with, never to learn from.
        source: where its files are.
        read_target: what finds its target, given the example.
    """

    name: str
    is_test: bool
    source: Source
    read_target: Callable[[Example], Tensor]

    def image(self) -> bytes:
        """The image file as it is.

        Raises:
            DatasetError: it cannot be read, or is too large.
        """
        return self.source.read(self.name)

    def pixels(self) -> Tensor:
        """The image, upright, (3, H, W) uint8.

        Raises:
            DatasetError: it cannot be read or decoded.
        """
        return decode(self.image(), self.source.where(self.name))

    def size(self) -> tuple[int, int]:
        """Height and width of the upright image.

        Raises:
            DatasetError: the file cannot be read, or is no image.
        """
        return upright_size(self.image(), self.source.where(self.name))

    def target(self) -> Tensor:
        """What a network is to say of the image; see ``cdal.models.predictions``.

        Masks and boxes are of the upright image.

        Raises:
            DatasetError: a file with labels cannot be read.
        """
        return self.read_target(self)


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Labelled images for one task.

    Attributes:
        task: "classification", "segmentation" or "detection".
        classes: their names; targets are indices among them.
        examples: sorted by name.
    """

    task: str
    classes: tuple[str, ...]
    examples: tuple[Example, ...]

    @property
    def train(self) -> tuple[Example, ...]:
        """Those to learn from."""
        return tuple(example for example in self.examples if not example.is_test)

    @property
    def test(self) -> tuple[Example, ...]:
        """Those to measure with."""
        return tuple(example for example in self.examples if example.is_test)


def split_to_test_with(splits: Sequence[str | None]) -> str | None:
    """The split to measure with: "test", "val" where there is none, or None without either."""
    return next((name for name in ("test", "val") if name in splits), None)


def hold_back(examples: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """The examples, by name; a random share of them are test examples, if none is yet."""
    ordered = sorted(examples, key=lambda example: example.name)
    if any(example.is_test for example in ordered):
        return tuple(ordered)
    count = round(len(ordered) * TEST_SHARE)
    test = set(Random(seed).sample(range(len(ordered)), count))  # noqa: S311 — no secret
    return tuple(replace(example, is_test=row in test) for row, example in enumerate(ordered))
