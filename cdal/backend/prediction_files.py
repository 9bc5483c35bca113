"""``cdal predict``: what a model finds in image files, for Label Studio, as COCO or as YOLO."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import torch
from torch import Tensor

from cdal.backend.annotations import Region, to_result
from cdal.backend.annotations.control import Control
from cdal.backend.annotations.labeling_config import served_controls
from cdal.backend.annotations.rectangles import corners_of
from cdal.backend.errors import ImageError, LabelingError
from cdal.backend.images.decode import decode, inspect
from cdal.backend.settings import ProjectSettings
from cdal.export import open_export
from cdal.models import BACKGROUND, ModelError, Prediction, TaskNetwork, choose_device
from cdal.models.head import HeadNetwork
from cdal.text import one_line

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
"""Files of a folder that are images."""

MAX_PIXELS = 200_000_000

TAGS = {
    "classification": "Choices",
    "multilabel": "Choices",
    "detection": "RectangleLabels",
    "segmentation": "BrushLabels",
}
"""The control of a task without a labeling config."""


class PredictError(Exception):
    """The images cannot be predicted; the message says why."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a model finds in an image.

    Attributes:
        name: the image's name, relative to the folder it was found in, with "/".
        size: its height and width in pixels.
        regions: in Label Studio's format.
    """

    name: str
    size: tuple[int, int]
    regions: Sequence[Region]


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        0; 1 with sentences on standard error if something is impossible or an image is unreadable.

    Raises:
        OSError: a path other than that of the output cannot be used.
    """
    unreadable: list[str] = []
    try:
        network = open_export(arguments.model, choose_device(arguments.device))
        images = find_images(arguments.images)
        control = _control(network, arguments)
        _check_new(arguments.out)
        if arguments.to == "yolo":
            _check_texts(images)
        with _unfinished(arguments.out) as out:
            found = list(predict(network, control, images, unreadable.append))
            WRITERS[arguments.to](found, control.labels, out, arguments)
    except (ModelError, LabelingError, PredictError) as error:
        return _complain(str(error))
    for sentence in unreadable:
        _complain(sentence)
    regions = sum(len(image.regions) for image in found)
    sys.stdout.write(f"{arguments.out} has {regions:,} regions in {len(found):,} images.\n")
    return 1 if unreadable else 0


def _check_new(out: Path) -> None:
    if out.exists():
        raise PredictError(f"{out} already exists; name a new file or folder.")


@contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
    """Where to write the output, which gets its name at the end: it is complete or missing.

    Raises:
        PredictError: it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".cdal-predict-") as folder:
            place = Path(folder) / "out"
            yield place
            place.rename(out)
    except OSError as error:  # images that cannot be read do not raise it
        raise PredictError(f"{out} cannot be written: {error.strerror}.") from None


def find_images(paths: Sequence[Path]) -> dict[str, Path]:
    """Image files, and those of folders and their subfolders, by their names in the results.

    Raises:
        PredictError: a path does not exist, two files have the same name or one has a name that is
            not text, or there are none.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            files = sorted(filter(_is_image, path.rglob("*")))
        elif path.is_file():
            files = [path]
        else:
            raise PredictError(f"{path} does not exist.")
        for file in files:
            name = file.relative_to(path).as_posix() if path.is_dir() else file.name
            if not _is_text(name):
                shown = one_line(os.fsencode(name).decode(errors="replace"))
                raise PredictError(f"The file {shown} has a name that is not UTF-8; rename it.")
            if found.setdefault(name, file) != file:
                raise PredictError(f"{found[name]} and {file} would both be called {name}.")
    if not found:
        raise PredictError("There are no images; name image files, or folders with some.")
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_texts(images: Iterable[str]) -> None:
    """Refuse images of which YOLO's texts would have the same name.

    Raises:
        PredictError: there are two.
    """
    texts: dict[PurePosixPath, str] = {}
    for name in images:
        text = PurePosixPath(name).with_suffix(".txt")
        if texts.setdefault(text, name) != name:
            raise PredictError(f"{texts[text]} and {name} would both be described in {text}.")


def predict(
    network: TaskNetwork,
    control: Control,
    images: Mapping[str, Path],
    tell: Callable[[str], None],
) -> Iterator[Predicted]:
    """What a model finds in images that can be read.

    Args:
        network: the model.
        control: whose regions are made.
        images: the files by their names.
        tell: called with a sentence about each image that cannot be read.
    """
    settings = ProjectSettings()
    read = _read(images, tell)
    prepared = ((name, pixels.shape[1:], network.prepare(pixels)) for name, pixels in read)
    while batch := list(islice(prepared, network.prediction_batch_size)):
        findings = _predict(network, [one for _, _, one in batch]).findings()
        for (name, (height, width), _), finding in zip(batch, findings, strict=True):
            size = (height, width)
            regions = to_result(control, network.classes, finding, size, settings)
            yield Predicted(name, size, regions)


def _predict(network: TaskNetwork, images: Sequence[Tensor]) -> Prediction:
    """A prediction for prepared images; those that are seen in tiles differ in size."""
    if isinstance(network, HeadNetwork):
        return network.judge(network.look(images))
    return network.predict(torch.stack(list(images)))


def _read(images: Mapping[str, Path], tell: Callable[[str], None]) -> Iterator[tuple[str, Tensor]]:
    for name, file in images.items():
        try:
            data = file.read_bytes()
            inspect(data, MAX_PIXELS)
            yield name, decode(data)
        except (OSError, ImageError) as error:
            tell(f"{file} is left out: {error}")


def _control(network: TaskNetwork, arguments: argparse.Namespace) -> Control:
    """The control whose regions are written.

    Raises:
        LabelingError: the given labeling config cannot be served.
        PredictError: it is for another task, or cannot be read.
    """
    if arguments.labeling_config is not None:
        try:
            text = arguments.labeling_config.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise PredictError(f"{arguments.labeling_config} cannot be read.") from None
        served = served_controls(text)
        fitting = [control for control in served if control.task == network.task]
        if not fitting:
            tasks = " and ".join(control.task for control in served)
            raise PredictError(
                f"The labeling config is for {tasks}, and the model for {network.task}."
            )
        control = max(fitting, key=lambda one: sum(map(bool, map(one.label_of, network.classes))))
    else:
        labels = tuple(name for name in network.classes if name != BACKGROUND)
        tag, multiple = TAGS[network.task], network.task == "multilabel"
        control = Control(tag, "label", "image", "image", labels, multiple=multiple)
    if arguments.to != "label-studio":
        if network.task in ("classification", "multilabel"):
            raise PredictError(f"{arguments.to} has no classes of whole images; use label-studio.")
        if network.task == "segmentation":
            control = replace(control, tag="PolygonLabels")
    if arguments.threshold is not None:
        control = replace(control, score_threshold=arguments.threshold)
    return control


def _label_studio(
    found: Sequence[Predicted], labels: Sequence[str], out: Path, arguments: argparse.Namespace
) -> None:
    """Tasks with predictions, to import in Label Studio."""
    del labels
    tasks = []
    for image in found:
        scores = [region["score"] for region in image.regions]
        prediction: dict[str, Any] = {
            "model_version": arguments.model.resolve().name,
            "result": image.regions,
        }
        if scores:
            prediction["score"] = min(scores)
        address = _address(arguments.prefix, image.name)
        tasks.append({"data": {"image": address}, "predictions": [prediction]})
    _write(out, tasks)


def _address(prefix: str, name: str) -> str:
    """An image's address; in those of storages, such as s3://, nothing is percent-encoded."""
    is_encoded = prefix.lower().startswith(("/", "http://", "https://"))
    return prefix + (quote(name) if is_encoded else name)


def _coco(
    found: Sequence[Predicted], labels: Sequence[str], out: Path, _: argparse.Namespace
) -> None:
    """COCO's annotations, each with a score: one JSON for boxes or polygons."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(found, 1):
        height, width = image.size
        images.append({"id": number, "file_name": image.name, "height": height, "width": width})
        for region in image.regions:
            points = _points(region, image.size)
            left, top = (min(axis) for axis in zip(*points, strict=True))
            right, bottom = (max(axis) for axis in zip(*points, strict=True))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": labels.index(_label(region)) + 1,
                    "bbox": _rounded([left, top, right - left, bottom - top]),
                    "area": round(_area(points), 2),
                    "segmentation": [_rounded(sum(points, ()))],
                    "iscrowd": 0,
                    "score": region["score"],
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(labels, 1)]
    _write(out, {"images": images, "annotations": annotations, "categories": categories})


def _yolo(
    found: Sequence[Predicted], labels: Sequence[str], out: Path, _: argparse.Namespace
) -> None:
    """YOLO's folder: a text per image in labels/, and the classes' names in classes.txt.

    A line is the class, the box's centre and sides or the polygon's points, and the confidence. Of
    a rotated box, it has the hull.
    """
    folder = out / "labels"
    folder.mkdir(parents=True)  # also if no image can be read
    for image in found:
        lines = []
        for region in image.regions:
            value = region["value"]
            if "points" in value:
                shape = [share for point in value["points"] for share in point]
            else:
                xs, ys = zip(*corners_of(value, image.size[0] / image.size[1]), strict=True)
                left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
                shape = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
            numbers = " ".join(f"{share / 100:.6f}" for share in shape)
            lines.append(f"{labels.index(_label(region))} {numbers} {region['score']:.4f}\n")
        file = folder / PurePosixPath(image.name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines))
    # A label may have a line break, which would move the numbers of all after it.
    names = "".join(f"{' '.join(name.split())}\n" for name in labels)
    (out / "classes.txt").write_text(names, encoding="utf-8")


Writer = Callable[[Sequence[Predicted], Sequence[str], Path, argparse.Namespace], None]

WRITERS: Mapping[str, Writer] = {"label-studio": _label_studio, "coco": _coco, "yolo": _yolo}
"""What writes each format."""


def _label(region: Region) -> str:
    name: str = region["value"][region["type"]][0]
    return name


def _points(region: Region, size: tuple[int, int]) -> list[tuple[float, float]]:
    """The corners of a box or polygon in pixels."""
    value = region["value"]
    height, width = size
    points = value.get("points")
    if points is None:
        points = corners_of(value, height / width)
    return [(x * width / 100, y * height / 100) for x, y in points]


def _area(points: Sequence[tuple[float, float]]) -> float:
    """The area of a polygon, by the shoelace formula."""
    pairs = zip(points, [*points[1:], points[0]], strict=True)
    return abs(sum(x * y2 - x2 * y for (x, y), (x2, y2) in pairs)) / 2


def _rounded(numbers: Iterable[float]) -> list[float]:
    return [round(number, 2) for number in numbers]


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _complain(sentence: str) -> int:
    sys.stderr.write(f"cdal: {sentence}\n")
    return 1
