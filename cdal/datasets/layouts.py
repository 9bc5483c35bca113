"""Detect the layout of a folder or zip by its contents, and open it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from cdal.datasets import class_folders, coco, image_masks, voc, yolo
from cdal.datasets.errors import DatasetError
from cdal.datasets.image_set import Example, ImageSet
from cdal.datasets.sources import Source, open_source

Read = Callable[[Source, int], ImageSet]
"""Reads a source, given the seed for choosing test examples."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout of labelled images.

    Attributes:
        called: its name within a sentence.
        needed: the files that it requires, within a sentence.
        fits: whether a source seems to have this layout.
        read: what reads it for each of its tasks, the usual one first.
    """

    called: str
    needed: str
    fits: Callable[[Source], bool]
    read: dict[str, Read]


def _of_boxes(read: Read) -> dict[str, Read]:
    """What reads boxes, or only which classes an image has boxes of."""
    return {"detection": read, "multilabel": partial(_only_classes, read)}


def _either(read: Callable[..., ImageSet]) -> dict[str, Read]:
    """What reads boxes, and masks where they are wanted."""
    boxes, masks = (partial(read, task=task) for task in ("detection", "segmentation"))
    return {**_of_boxes(boxes), "segmentation": masks}


def _only_classes(read: Read, source: Source, seed: int) -> ImageSet:
    images = read(source, seed)
    count = len(images.classes)
    examples = [
        replace(example, read_target=partial(_classes_in, example.read_target, count))
        for example in images.examples
    ]
    return ImageSet("multilabel", images.classes, tuple(examples))


def _classes_in(read_boxes: Callable[[Example], Tensor], count: int, example: Example) -> Tensor:
    """Whether an image has boxes of each class, (C,) float32."""
    found = torch.zeros(count)
    found[read_boxes(example)[:, 4].long()] = 1
    return found


# Class folders come last, because the images of the other layouts are in folders too.
LAYOUTS = (
    Layout("VOC's layout", voc.NEEDED, voc.fits, _of_boxes(voc.read)),
    Layout("COCO's layout", coco.NEEDED, coco.fits, _either(coco.read)),
    Layout(
        "images with masks",
        image_masks.NEEDED,
        image_masks.fits,
        {"segmentation": image_masks.read},
    ),
    Layout("YOLO's layout", yolo.NEEDED, yolo.fits, _either(yolo.read)),
    Layout(
        "class folders",
        class_folders.NEEDED,
        class_folders.fits,
        {"classification": class_folders.read},
    ),
)

TASKS = ("classification", "segmentation", "detection")


def open_images(path: Path, task: str | None = None, seed: int = 0) -> ImageSet:
    """Open the labelled images of a folder or zip.

    Args:
        path: the folder or zip.
        task: the required task; None: the usual one of its layout.
        seed: the seed for choosing test examples if the files define no split.

    Raises:
        DatasetError: there are no labelled images, or they are for another task; the message says
            what was found and what is needed.
    """
    source = open_source(path)
    found = next((layout for layout in LAYOUTS if layout.fits(source)), None)
    if found is None:
        wanted = [f"{_needed(name)} ({name})" for name in ([task] if task else TASKS)]
        raise DatasetError(f"{path} contains {_contents(source)}. It needs {'; or '.join(wanted)}.")
    usual = next(iter(found.read))
    if task is not None and task not in found.read:
        raise DatasetError(
            f"{path} contains {found.called}, a layout for {usual}; {task} needs {_needed(task)}."
        )
    return found.read[task or usual](source, seed)


def _needed(task: str) -> str:
    """What a task needs, whichever layout it is in."""
    return ", or ".join(layout.needed for layout in LAYOUTS if task in layout.read)


def _contents(source: Source) -> str:
    """A short description of the files in a source."""
    if not source.names:
        return "no files"
    folders = sorted({str(PurePosixPath(name).parent) for name in source.names} - {"."})
    some = ", ".join(folders[:4]) + (", …" if len(folders) > 4 else "")
    where = f" in {some}" if folders else f", such as {source.names[0]}"
    return f"{len(source.names)} files{where}"
