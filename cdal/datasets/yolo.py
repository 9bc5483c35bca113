"""YOLO's layout: a text per image, with a box or polygon per line, in labels/ beside images/."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import Any, ClassVar

import yaml

from cdal.datasets.errors import DatasetError
from cdal.datasets.image_set import ImageSet
from cdal.datasets.shapes import Shape, image_set, images_of, split_of
from cdal.datasets.sources import Source

NEEDED = (
    "YOLO's images/SPLIT/NAME.jpg with labels/SPLIT/NAME.txt, or SPLIT/images and SPLIT/labels, "
    "and data.yaml or classes.txt with the names"
)

LISTS = frozenset({"classes.txt", "obj.names", "labels.txt"})
"""Files with one class name per line."""


def fits(source: Source) -> bool:
    """Whether a source has images, and texts in a folder labels beside them."""
    names = set(source.names)
    return any(_labels(image) in names for image in images_of(source))


def read(source: Source, seed: int, task: str = "detection") -> ImageSet:
    """Read the images whose folder of labels exists.

    An image without a text, or with an empty one, is a negative example.

    Args:
        source: the files.
        seed: of the test images, if no folder tells splits.
        task: "detection", or "segmentation" for the objects' polygons.

    Raises:
        DatasetError: a text is damaged, a class has no name, or no object is labelled.
    """
    classes = _classes(source)
    names = set(source.names)
    folders = {str(PurePosixPath(name).parent) for name in names}
    shapes: dict[str, list[Shape]] = {}
    for image in images_of(source):
        file = _labels(image)
        if file in names:
            shapes[image] = _read(source, file, classes)
        elif file is not None and str(PurePosixPath(file).parent) in folders:
            shapes[image] = []
    if not any(shapes.values()):
        raise DatasetError(f"{source.path} has no labelled object; {task} needs {NEEDED}.")
    if not classes:
        found = {shape.name for of_image in shapes.values() for shape in of_image}
        classes = tuple(sorted(found, key=int))
    splits = {image: split_of(image) for image in shapes}
    return image_set(source, task, classes, shapes, splits, seed)


def _labels(image: str) -> str | None:
    """The text of an image: in the same place of the folder labels; None if it has none."""
    parts = list(PurePosixPath(image).parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            return str(PurePosixPath(*parts).with_suffix(".txt"))
    return None


def _classes(source: Source) -> tuple[str, ...]:
    """The names of the classes; empty if no file has them."""
    for name in sorted(source.names, key=lambda one: len(PurePosixPath(one).parts)):
        path = PurePosixPath(name)
        if path.suffix.lower() in (".yaml", ".yml"):
            found = _names_in(source, name)
        elif path.name in LISTS:
            lines = (line.strip() for line in source.text(name).splitlines())
            found = tuple(filter(None, lines))
        else:
            continue
        if len(set(found)) < len(found):
            raise DatasetError(f"{source.where(name)} has a class name twice.")
        if found:
            return found
    return ()


class _Texts(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Reads every value as text: a class may be called "no" or 2024-02-30."""

    yaml_implicit_resolvers: ClassVar[dict[str, object]] = {}


def _names_in(source: Source, file: str) -> tuple[str, ...]:
    """The names in a YAML, a list or a mapping from 0 on; empty if it has none."""
    try:
        content: Any = _Texts(source.text(file)).get_single_data()
    except DatasetError:
        raise
    except Exception as error:  # for wrong values, PyYAML raises whatever comes of them
        raise DatasetError(f"{source.where(file)} is not YAML.") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        names = [names.get(str(number), "") for number in range(len(names))]
    if not isinstance(names, list):
        return ()
    if not all(isinstance(name, str) and name for name in names):
        raise DatasetError(f"{source.where(file)} must name the classes 0, 1, 2, … without a gap.")
    return tuple(names)


def _read(source: Source, file: str, classes: tuple[str, ...]) -> list[Shape]:
    try:
        lines = [line.split() for line in source.text(file).splitlines()]
        return [_shape(words, classes) for words in lines if words]
    except ValueError as error:
        raise DatasetError(f"{source.where(file)} is not YOLO's: {error}.") from error


def _shape(words: list[str], classes: tuple[str, ...]) -> Shape:
    index = int(words[0])
    if index < 0 or (classes and index >= len(classes)):
        raise ValueError(f"class {index} has no name")
    name = classes[index] if classes else str(index)
    numbers = tuple(map(float, words[1:]))
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a coordinate is not a number")
    if len(numbers) in (4, 5):  # the fifth is a confidence
        x, y, width, height = numbers[:4]
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return Shape(name, corners, shares=True)
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError("a line is neither a box nor a polygon")
    x_values, y_values = numbers[::2], numbers[1::2]
    corners = (min(x_values), min(y_values), max(x_values), max(y_values))
    return Shape(name, corners, (numbers,), shares=True)
