"""The layout for detection: PASCAL VOC's JPEGImages/, Annotations/ and ImageSets/Main/."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import torch
from torch import Tensor

from cdal.datasets.errors import DatasetError
from cdal.datasets.image_set import Example, ImageSet, hold_back, test_split
from cdal.datasets.pixels import SUFFIXES
from cdal.datasets.sources import MAX_TEXT_BYTES, Source

NEEDED = (
    "JPEGImages/NAME.jpg with Annotations/NAME.xml, and optionally ImageSets/Main/train.txt and "
    "test.txt with one name per line"
)
LISTS = ("train", "trainval", "val", "test")


@dataclass(frozen=True, slots=True)
class Box:
    """An object: its class, and left, top, right and bottom as in the annotation file.

    Attributes:
        difficult: whether the annotation calls it so.
    """

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool = False


def fits(source: Source) -> bool:
    """Whether a source has a folder JPEGImages."""
    return any("JPEGImages" in PurePosixPath(name).parts[:-1] for name in source.names)


def read(source: Source, seed: int, difficult: bool | None = None) -> ImageSet:
    """Read the images that have an annotation; the classes are in alphabetical order.

    If ImageSets/Main has lists, only the images in them are used. An annotation without objects
    makes its image a negative example.

    Args:
        source: the files.
        seed: of the test images, if no list defines them.
        difficult: only objects that are difficult, or that are not; None for all.

    Raises:
        DatasetError: there are no labelled objects, or an annotation cannot be read.
    """
    root = _root(source)
    images = _files(source, root / "JPEGImages", SUFFIXES)
    annotations = _files(source, root / "Annotations", {".xml"})
    splits = _splits(source, root)
    names = sorted(images.keys() & annotations.keys() & (splits or images).keys())
    boxes = {name: read_annotation(source, annotations[name]) for name in names}
    classes = tuple(sorted({box.name for of_image in boxes.values() for box in of_image}))
    if not classes:
        raise DatasetError(
            f"{source.path} has {len(images)} images in JPEGImages and {len(annotations)} files in "
            f"Annotations, but no labelled object; detection needs {NEEDED}."
        )
    test = test_split([splits.get(name) for name in names])
    examples = [
        Example(
            images[name],
            splits.get(name) == test is not None,
            source,
            _target([box for box in boxes[name] if difficult in (None, box.difficult)], classes),
        )
        for name in names
    ]
    return ImageSet("detection", classes, hold_back(examples, seed))


def read_annotation(source: Source, file: str) -> tuple[Box, ...]:
    """Read the objects of one annotation file.

    Raises:
        DatasetError: the file is not a VOC annotation.
    """
    # Imported here, because only this layout needs it.
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        tree = fromstring(source.read(file, MAX_TEXT_BYTES))
        return tuple(_box(item.findtext) for item in tree.iter("object"))
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise DatasetError(f"{source.where(file)} is not a VOC annotation: {error}.") from error


def _box(text: Callable[[str, str], str]) -> Box:
    """The box of an XML element, given a function that finds the text of its parts."""
    left, top, right, bottom = (
        float(text(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    name = text("name", "").strip()
    if not name or not math.isfinite(left + top + right + bottom):
        raise ValueError("an object lacks a name or a coordinate")
    return Box(name, (left, top, right, bottom), text("difficult", "").strip() == "1")


def _target(boxes: Sequence[Box], classes: Sequence[str]) -> Callable[[Example], Tensor]:
    def clip(example: Example) -> Tensor:
        height, width = example.size()
        # VOC counts pixels from 1, and the box includes the last one.
        rows = [
            [
                *(box.corners[0] - 1, box.corners[1] - 1, box.corners[2], box.corners[3]),
                classes.index(box.name),
            ]
            for box in boxes
        ]
        target = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
        target[:, 0:4:2].clamp_(0, width)
        target[:, 1:4:2].clamp_(0, height)
        return target[(target[:, 2] > target[:, 0]) & (target[:, 3] > target[:, 1])]

    return clip


def _root(source: Source) -> PurePosixPath:
    """The folder that contains JPEGImages."""
    roots = set()
    for name in source.names:
        parts = PurePosixPath(name).parts
        if "JPEGImages" in parts[:-1]:
            roots.add(PurePosixPath(*parts[: parts.index("JPEGImages")]))
    if len(roots) > 1:
        raise DatasetError(
            f"{source.path} contains several data sets in VOC's layout: "
            f"{', '.join(sorted(map(str, roots)))}; use one of these folders."
        )
    return roots.pop()


def _files(
    source: Source, folder: PurePosixPath, suffixes: frozenset[str] | set[str]
) -> dict[str, str]:
    """The files of a folder with one of the suffixes, by their names without suffix."""
    paths = (PurePosixPath(name) for name in source.names)
    return {
        path.stem: str(path)
        for path in paths
        if path.parent == folder and path.suffix.lower() in suffixes
    }


def _splits(source: Source, root: PurePosixPath) -> Mapping[str, str]:
    """The split of each image in the lists; empty without lists."""
    lists = _files(source, root / "ImageSets" / "Main", {".txt"})
    splits: dict[str, str] = {}
    for split in LISTS:  # an image in several lists belongs to the last
        for line in source.text(lists[split]).splitlines() if split in lists else ():
            if line.strip():
                splits[line.split()[0]] = split
    return splits
