"""The layout for segmentation: SPLIT/images/NAME.jpg with masks SPLIT/masks/NAME.png."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

import torch
from torch import Tensor

from cdal.datasets.errors import DatasetError
from cdal.datasets.image_set import SPLITS, Example, ImageSet, hold_back, test_split
from cdal.datasets.pixels import SUFFIXES, decode_mask
from cdal.datasets.sources import Source
from cdal.models.predictions import IGNORED

NO_CLASS = frozenset({"unlabelled", "unlabeled", "void", "ignore", "ignored"})
"""Names in classes.txt for pixels whose class is unknown."""

NEEDED = (
    "train/images/NAME.jpg with train/masks/NAME.png, optionally the same for test, and "
    "classes.txt with one class name per line for the mask values 0, 1, 2, …"
)


def fits(source: Source) -> bool:
    """Whether a source has a folder of masks beside one of images."""
    folders = {PurePosixPath(name).parent for name in source.names}
    return any(f.name == "masks" and f.with_name("images") in folders for f in folders)


def read(source: Source, seed: int) -> ImageSet:
    """Read the images that have a mask of the same name.

    The classes are the lines of classes.txt, in order, except for the names in ``NO_CLASS``. Their
    pixels, and those with values that have no line, are ``IGNORED``.

    Raises:
        DatasetError: there is no list of classes, or no image with a mask.
    """
    classes, index_of_value = _classes(source)
    masks = {_key(name): name for name in source.names if _folder(name) == "masks"}
    pairs = {
        name: masks[_key(name)]
        for name in source.names
        if _folder(name) == "images" and _key(name) in masks
    }
    if not pairs:
        raise DatasetError(
            f"{source.path} has folders of images and masks, but no image and mask of the same "
            f"name; segmentation needs {NEEDED}."
        )
    splits = {name: _split(name) for name in pairs}
    test = test_split(list(splits.values()))
    examples = [
        Example(name, splits[name] == test is not None, source, _mask(mask, index_of_value))
        for name, mask in pairs.items()
    ]
    return ImageSet("segmentation", classes, hold_back(examples, seed))


def _classes(source: Source) -> tuple[tuple[str, ...], Tensor]:
    """The classes, and the class index of each mask value, (256,) uint8."""
    file = next((name for name in source.names if PurePosixPath(name).name == "classes.txt"), None)
    if file is None:
        raise DatasetError(
            f"{source.path} has images and masks, but no classes.txt with the names of the mask "
            "values 0, 1, 2, …, one per line."
        )
    lines = [line.strip() for line in source.text(file).strip().splitlines()]
    values = [value for value, name in enumerate(lines) if name.lower() not in NO_CLASS]
    classes = tuple(lines[value] for value in values)
    if not classes or "" in classes or len(set(classes)) < len(classes) or len(lines) > IGNORED:
        raise DatasetError(
            f"{source.where(file)} must have 1 to {IGNORED} lines with different class names."
        )
    index_of_value = torch.full((256,), IGNORED, dtype=torch.uint8)
    index_of_value[values] = torch.arange(len(values), dtype=torch.uint8)
    return classes, index_of_value


def _mask(file: str, index_of_value: Tensor) -> Callable[[Example], Tensor]:
    def read_mask(example: Example) -> Tensor:
        source = example.source
        mask = decode_mask(source.read(file), source.where(file))
        if tuple(mask.shape) != example.size():
            raise DatasetError(
                f"{source.where(file)} has {tuple(mask.shape)} rows and columns, but its upright "
                f"image has {example.size()}; they must be the same."
            )
        return index_of_value[mask.long()]

    return read_mask


def _folder(name: str) -> str | None:
    """The name of the folder that contains an image file; None if it is not an image."""
    path = PurePosixPath(name)
    return path.parent.name if path.suffix.lower() in SUFFIXES else None


def _key(name: str) -> tuple[PurePosixPath, str]:
    """The part of the path that an image and its mask share."""
    path = PurePosixPath(name)
    return path.parent.parent, path.stem


def _split(name: str) -> str | None:
    folder = PurePosixPath(name).parent.parent.name
    return folder if folder in SPLITS else None
