"""The layout for classification: class folders, SPLIT/CLASS/NAME.jpg or CLASS/NAME.jpg."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

import torch
from torch import Tensor

from cdal.datasets.errors import DatasetError
from cdal.datasets.image_set import SPLITS, Example, ImageSet, hold_back, test_split
from cdal.datasets.pixels import SUFFIXES
from cdal.datasets.sources import Source

NEEDED = (
    "one folder of images per class for at least two classes, CLASS/NAME.jpg, or "
    "train/CLASS/NAME.jpg and test/CLASS/NAME.jpg"
)


def fits(source: Source) -> bool:
    """Whether a source has images in folders that may be classes."""
    return any(_label(name) is not None for name in source.names)


def read(source: Source, seed: int) -> ImageSet:
    """Read a source; folder names are the classes, in alphabetical order.

    Raises:
        DatasetError: there are fewer than two classes.
    """
    labels = {name: label for name in source.names if (label := _label(name)) is not None}
    classes = tuple(sorted(set(labels.values())))
    if len(classes) < 2:
        raise DatasetError(
            f'{source.path} has only one folder of images, "{classes[0]}"; classification needs '
            f"{NEEDED}."
        )
    splits = {name: _split(name) for name in labels}
    test = test_split(list(splits.values()))
    examples = [
        Example(name, splits[name] == test is not None, source, _constant(classes.index(label)))
        for name, label in labels.items()
    ]
    return ImageSet("classification", classes, hold_back(examples, seed))


def _label(name: str) -> str | None:
    """The class of an image; None if the file is not an image in a class folder."""
    path = PurePosixPath(name)
    if path.suffix.lower() not in SUFFIXES or len(path.parts) < 2 or path.parts[-2] in SPLITS:
        return None
    return path.parts[-2]


def _split(name: str) -> str | None:
    folders = PurePosixPath(name).parts[:-2]
    return next((part for part in reversed(folders) if part in SPLITS), None)


def _constant(label: int) -> Callable[[Example], Tensor]:
    return lambda _: torch.tensor(label)
