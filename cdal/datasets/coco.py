"""COCO's layout: JSON files with images, annotations and categories, for boxes or masks.

pycocotools rasterises the polygons. Its own reader prints, and reads neither zips nor what other
tools write; datumaro and supervision bring pandas, pyarrow or a video decoder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from cdal.datasets.errors import DatasetError
from cdal.datasets.image_set import ImageSet
from cdal.datasets.shapes import Shape, image_set, images_of, split_of
from cdal.datasets.sources import Source

NEEDED = (
    "COCO's annotations/instances_SPLIT.json or SPLIT/_annotations.coco.json, with the images that "
    "they name"
)

MAX_JSON_BYTES = 2**30
"""COCO's own annotations take 450 MB."""


def fits(source: Source) -> bool:
    """Whether a source has images, and a JSON whose name is one that COCO's files have."""
    return bool(_files(source)) and bool(images_of(source))


def read(source: Source, seed: int, task: str = "detection") -> ImageSet:
    """Read the images that are there; classes are the categories with objects, by their ids.

    Crowds are left out. An image without annotations is a negative example.

    Args:
        source: the files.
        seed: of the test images, if no name tells splits.
        task: "detection", or "segmentation" for the objects' masks.

    Raises:
        DatasetError: a file is damaged, its images are not there, or no object is labelled.
    """
    shapes: dict[str, list[Shape]] = {}
    splits: dict[str, str | None] = {}
    names: dict[str, tuple[int, bool, Any]] = {}
    by_name: dict[str, list[str]] = {}
    for name in images_of(source):
        by_name.setdefault(PurePosixPath(name).name, []).append(name)
    for number, file in enumerate(_files(source)):
        try:
            content = json.loads(source.read(file, MAX_JSON_BYTES))
            categories = {one["id"]: str(one["name"]) for one in content["categories"]}
            found = {
                one["id"]: _find(source, file, str(one["file_name"]), by_name)
                for one in content["images"]
            }
            for name in filter(None, found.values()):
                shapes.setdefault(name, [])
                splits[name] = split_of(file) or split_of(name)
            for one in content["annotations"]:
                shown = found[one["image_id"]]
                if shown is not None and not one.get("iscrowd"):
                    shape = _shape(one, categories[one["category_id"]])
                    names.setdefault(shape.name, (number, *_order(one["category_id"])))
                    shapes[shown].append(shape)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise DatasetError(f"{source.where(file)} is not COCO's JSON: {reason}.") from error
    if not names:
        raise DatasetError(
            f"{source.path} has no labelled object in {', '.join(_files(source))} whose image is "
            f"there; {task} needs {NEEDED}."
        )
    classes = sorted(names, key=lambda name: names[name])
    return image_set(source, task, classes, shapes, splits, seed)


def _files(source: Source) -> list[str]:
    """The JSON files that may be COCO's."""
    found = []
    for name in source.names:
        path = PurePosixPath(name)
        named = "coco" in path.stem.lower() or path.stem.startswith("instances")
        if path.suffix.lower() == ".json" and (named or path.parent.name == "annotations"):
            found.append(name)
    # Of several kinds of annotations of the same images, those of objects.
    objects = [name for name in found if PurePosixPath(name).stem.startswith("instances")]
    return objects or found


def _find(
    source: Source, file: str, wanted: str, by_name: Mapping[str, Sequence[str]]
) -> str | None:
    """The image that a JSON names, which may be given relative to several folders."""
    known = by_name.get(PurePosixPath(wanted).name, ())
    whole = [name for name in known if f"/{name}".endswith(f"/{wanted}")] or list(known)
    beside = f"{PurePosixPath(file).parent}/"
    split = split_of(file)
    for better in (
        [name for name in whole if name.startswith(beside)],
        [name for name in whole if split is not None and split_of(name) == split],
        whole,
    ):
        if len(better) == 1:
            return better[0]
        if better:
            whole = better
    if whole:
        raise DatasetError(
            f"{source.where(file)} names {wanted}, which may be {' or '.join(sorted(whole)[:3])}."
        )
    return None


def _shape(annotation: Mapping[str, Any], name: str) -> Shape:
    given = annotation.get("segmentation")
    polygons: tuple[tuple[float, ...], ...] = ()
    runs: tuple[int, ...] = ()
    if isinstance(given, Mapping):
        if isinstance(given["counts"], str):
            raise ValueError(  # noqa: TRY004 — the file is wrong, not the code
                "a mask has compressed run lengths, which are not read"
            )
        runs = tuple(int(count) for count in given["counts"])
    elif given:
        polygons = tuple(tuple(_numbers(polygon)) for polygon in given)
        if any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
            raise ValueError("a polygon has fewer than three points")
    if "bbox" in annotation:
        left, top, width, height = _numbers(annotation["bbox"])
        corners = (left, top, left + width, top + height)
    elif polygons:
        x = [number for polygon in polygons for number in polygon[::2]]
        y = [number for polygon in polygons for number in polygon[1::2]]
        corners = (min(x), min(y), max(x), max(y))
    else:
        raise KeyError("bbox")
    return Shape(name, corners, polygons, runs)


def _order(category: object) -> tuple[bool, Any]:
    """What categories are sorted by: their ids, of which some tools write some as text."""
    if not isinstance(category, int | float | str):
        raise TypeError(f"the id of a category is {category}")
    return isinstance(category, str), category


def _numbers(given: Sequence[Any]) -> list[float]:
    numbers = [float(one) for one in given]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a coordinate is not a number")
    return numbers
