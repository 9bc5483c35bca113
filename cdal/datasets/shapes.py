"""Objects as COCO and YOLO describe them, and the targets that are made of them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cdal.datasets.errors import DatasetError
from cdal.datasets.image_set import Example, ImageSet, hold_back, test_split
from cdal.datasets.pixels import SUFFIXES
from cdal.datasets.sources import Source
from cdal.models.predictions import IGNORED

SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""The split that part of a name stands for."""

FARTHEST = 2.0
"""How far from the image a polygon may reach, in sides; what lies beyond is moved there."""


@dataclass(frozen=True, slots=True)
class Shape:
    """An object in an image, in pixels, or as shares of the image's sides.

    Attributes:
        name: its class.
        corners: left, top, right and bottom.
        polygons: its outlines, x and y in turn; without any, a mask takes the whole box.
        runs: instead of polygons, the lengths of runs of pixels outside and inside it, column by
            column, beginning with those outside.
        shares: whether the numbers are shares.
    """

    name: str
    corners: tuple[float, float, float, float]
    polygons: tuple[tuple[float, ...], ...] = ()
    runs: tuple[int, ...] = ()
    shares: bool = False


def image_set(
    source: Source,
    task: str,
    classes: Sequence[str],
    shapes: Mapping[str, Sequence[Shape]],
    splits: Mapping[str, str | None],
    seed: int,
) -> ImageSet:
    """The set of these images, for detection or segmentation.

    Args:
        source: the files.
        task: "detection" or "segmentation".
        classes: in the order of the targets' indices.
        shapes: the objects of each image, by the image's name.
        splits: the split of each image.
        seed: for choosing test examples, if there is no split.
    """
    test = test_split(list(splits.values()))
    reader = _boxes if task == "detection" else _mask
    examples = [
        Example(name, splits[name] == test is not None, source, reader(of_image, tuple(classes)))
        for name, of_image in shapes.items()
    ]
    return ImageSet(task, tuple(classes), hold_back(examples, seed))


def images_of(source: Source) -> list[str]:
    """The names of all image files."""
    return [name for name in source.names if PurePosixPath(name).suffix.lower() in SUFFIXES]


def split_of(name: str) -> str | None:
    """The split that the folders of a file, or else its own name, stand for."""
    path = PurePosixPath(name)
    words = [*reversed(path.parts[:-1]), *re.split(r"[-_.]", path.stem)]
    # COCO's have a year: train2017.
    splits = (SPLIT_OF.get(word.lower().rstrip("0123456789")) for word in words)
    return next(filter(None, splits), None)


def _boxes(shapes: Sequence[Shape], classes: Sequence[str]) -> Callable[[Example], Tensor]:
    def read(example: Example) -> Tensor:
        height, width = example.size()
        rows = [
            [*_in_pixels(shape.corners, shape, height, width), classes.index(shape.name)]
            for shape in shapes
        ]
        target = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
        target[:, 0:4:2].clamp_(0, width)
        target[:, 1:4:2].clamp_(0, height)
        return target[(target[:, 2] > target[:, 0]) & (target[:, 3] > target[:, 1])]

    return read


def _mask(shapes: Sequence[Shape], classes: Sequence[str]) -> Callable[[Example], Tensor]:
    def read(example: Example) -> Tensor:
        height, width = example.size()
        target = np.full((height, width), IGNORED, np.uint8)
        masks = [(_inside(shape, example), classes.index(shape.name)) for shape in shapes]
        # The smallest in front, as a person on a bus is.
        for mask, index in sorted(masks, key=lambda one: -int(one[0].sum())):
            target[mask] = index
        return torch.from_numpy(target)

    return read


def _inside(shape: Shape, example: Example) -> npt.NDArray[np.bool_]:
    """The pixels of a shape, (H, W)."""
    height, width = example.size()
    if shape.runs:
        if sum(shape.runs) != height * width or min(shape.runs) < 0:
            raise DatasetError(
                f"{example.source.where(example.name)} has another size than an object's mask."
            )
        inside = np.repeat(np.arange(len(shape.runs)) % 2 == 1, shape.runs)
        return inside.reshape(width, height).T
    # Imported here, because only masks need it.
    from pycocotools import mask as coco

    left, top, right, bottom = shape.corners
    polygons = shape.polygons or ((left, top, right, top, right, bottom, left, bottom),)
    pixels = [_in_pixels(polygon, shape, height, width) for polygon in polygons]
    runs = coco.merge(coco.frPyObjects(pixels, height, width))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it does not follow numpy 2 everywhere
        return np.asarray(coco.decode(runs), dtype=bool)


def _in_pixels(numbers: Sequence[float], shape: Shape, height: int, width: int) -> list[float]:
    """Numbers for x and y in turn, in pixels, not far outside the image."""
    sides = (width, height)
    found = []
    for place, number in enumerate(numbers):
        side = sides[place % 2]
        pixels = number * side if shape.shares else number
        found.append(min(max(pixels, -FARTHEST * side), (1 + FARTHEST) * side))
    return found
