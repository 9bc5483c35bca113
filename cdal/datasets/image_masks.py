"""Images with masks: SPLIT/images/NAME.jpg and SPLIT/masks/NAME.png. For segmentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

import torch
from torch import Tensor

from cdal.datasets.errors import DatasetError
from cdal.datasets.image_set import SPLITS, Example, ImageSet, hold_back, split_to_test_with
from cdal.datasets.pixels import SUFFIXES, decode_mask
from cdal.datasets.sources import Source
from cdal.models.predictions import IGNORED

NO_CLASS = frozenset({"unlabelled", "unlabeled", "void", "ignore", "ignored"})
"""Names in classes.txt of values that stand for pixels of which nothing is known."""

NEEDED = (
    "train/images/NAME.jpg with train/masks/NAME.png, the same for test where there is one, and "
    "classes.txt with a name in each line for the values 0, 1, 2, … of the masks"
)


def fits(source: Source) -> bool:
    """Whether there is a folder of masks beside one of images."""
    folders = {PurePosixPath(name).parent for name in source.names}
    return any(f.name == "masks" and f.with_name("images") in folders for f in folders)


def read(source: Source, seed: int) -> ImageSet:
    """The images that have a mask of the same name.

    The classes are those of classes.txt, in its order, but for names that say that a pixel is of
    no class (``NO_CLASS``). Such pixels, and those of values that have no line, are ``IGNORED``.

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
            f"{source.path} has folders of images and of masks, but no image and mask of the same "
            f"name; segmentation needs {NEEDED}."
        )
    splits = {name: _split(name) for name in pairs}
    test = split_to_test_with(list(splits.values()))
    examples = [
        Example(name, splits[name] == test is not None, source, _mask(mask, index_of_value))
        for name, mask in pairs.items()
    ]
    return ImageSet("segmentation", classes, hold_back(examples, seed))


def _classes(source: Source) -> tuple[tuple[str, ...], Tensor]:
    """The classes, and the index of the class of each value of a mask, (256,) uint8."""
    file = next((name for name in source.names if PurePosixPath(name).name == "classes.txt"), None)
    if file is None:
        raise DatasetError(
            f"{source.path} has images and masks, but no classes.txt, which names the classes of "
            "the values 0, 1, 2, … in the masks, one in a line."
        )
    lines = [line.strip() for line in source.text(file).strip().splitlines()]
    values = [value for value, name in enumerate(lines) if name.lower() not in NO_CLASS]
    classes = tuple(lines[value] for value in values)
    if not classes or "" in classes or len(set(classes)) < len(classes) or len(lines) > IGNORED:
        raise DatasetError(
            f"{source.where(file)} must have 1 to {IGNORED} lines, each with another class's name."
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
                f"{source.where(file)} has {tuple(mask.shape)} rows and columns, and its image, "
                f"turned upright, {example.size()}; they must be the same."
            )
        return index_of_value[mask.long()]

    return read_mask


def _folder(name: str) -> str | None:
    """The name of the folder that an image file is in."""
    path = PurePosixPath(name)
    return path.parent.name if path.suffix.lower() in SUFFIXES else None


def _key(name: str) -> tuple[PurePosixPath, str]:
    """What an image and its mask share."""
    path = PurePosixPath(name)
    return path.parent.parent, path.stem


def _split(name: str) -> str | None:
    folder = PurePosixPath(name).parent.parent.name
    return folder if folder in SPLITS else None
