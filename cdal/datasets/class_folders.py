"""Class folders: SPLIT/CLASS/NAME.jpg, or CLASS/NAME.jpg. For classification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

import torch
from torch import Tensor

from cdal.datasets.errors import DatasetError
from cdal.datasets.image_set import SPLITS, Example, ImageSet, hold_back, split_to_test_with
from cdal.datasets.pixels import SUFFIXES
from cdal.datasets.sources import Source

NEEDED = (
    "a folder of images for each of at least two classes, CLASS/NAME.jpg, or train/CLASS/NAME.jpg "
    "and test/CLASS/NAME.jpg"
)


def fits(source: Source) -> bool:
    """Whether there are images in folders that may be classes."""
    return any(_label(name) is not None for name in source.names)


def read(source: Source, seed: int) -> ImageSet:
    """The images with their folders' names as classes, in alphabetical order.

    Raises:
        DatasetError: there are no two classes.
    """
    labels = {name: label for name in source.names if (label := _label(name)) is not None}
    classes = tuple(sorted(set(labels.values())))
    if len(classes) < 2:
        raise DatasetError(
            f'{source.path} has one folder of images, "{classes[0]}"; classification needs '
            f"{NEEDED}."
        )
    splits = {name: _split(name) for name in labels}
    test = split_to_test_with(list(splits.values()))
    examples = [
        Example(name, splits[name] == test is not None, source, _constant(classes.index(label)))
        for name, label in labels.items()
    ]
    return ImageSet("classification", classes, hold_back(examples, seed))


def _label(name: str) -> str | None:
    """The class of an image; None of any other file, and of images that are in no such folder."""
    path = PurePosixPath(name)
    if path.suffix.lower() not in SUFFIXES or len(path.parts) < 2 or path.parts[-2] in SPLITS:
        return None
    return path.parts[-2]


def _split(name: str) -> str | None:
    folders = PurePosixPath(name).parts[:-2]
    return next((part for part in reversed(folders) if part in SPLITS), None)


def _constant(label: int) -> Callable[[Example], Tensor]:
    return lambda _: torch.tensor(label)
