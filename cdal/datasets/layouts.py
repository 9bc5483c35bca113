"""Detect the layout of a folder or zip by its contents, and open it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cdal.datasets import class_folders, image_masks, voc
from cdal.datasets.errors import DatasetError
from cdal.datasets.image_set import ImageSet
from cdal.datasets.sources import Source, open_source


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout of labelled images for one task.

    Attributes:
        called: its name within a sentence.
        needed: the files that it requires, within a sentence.
        fits: whether a source seems to have this layout.
        read: reads a source, given the seed for choosing test examples.
    """

    called: str
    needed: str
    fits: Callable[[Source], bool]
    read: Callable[[Source, int], ImageSet]


# Class folders come last, because the images of the other layouts are in folders too.
LAYOUTS: Mapping[str, Layout] = {
    "detection": Layout("VOC's layout", voc.NEEDED, voc.fits, voc.read),
    "segmentation": Layout(
        "images with masks", image_masks.NEEDED, image_masks.fits, image_masks.read
    ),
    "classification": Layout(
        "class folders", class_folders.NEEDED, class_folders.fits, class_folders.read
    ),
}
"""The layout of each task."""

TASKS = ("classification", "segmentation", "detection")


def open_images(path: Path, task: str | None = None, seed: int = 0) -> ImageSet:
    """Open the labelled images of a folder or zip.

    Args:
        path: the folder or zip.
        task: the required task; None: any.
        seed: the seed for choosing test examples if the files define no split.

    Raises:
        DatasetError: there are no labelled images, or they are for another task; the message says
            what was found and what is needed.
    """
    source = open_source(path)
    found = next((name for name, layout in LAYOUTS.items() if layout.fits(source)), None)
    if found is None:
        wanted = [f"{LAYOUTS[name].needed} ({name})" for name in ([task] if task else TASKS)]
        raise DatasetError(f"{path} contains {_contents(source)}. It needs {'; or '.join(wanted)}.")
    if task is not None and task != found:
        raise DatasetError(
            f"{path} contains {LAYOUTS[found].called}, a layout for {found}; {task} needs "
            f"{LAYOUTS[task].needed}."
        )
    return LAYOUTS[found].read(source, seed)


def _contents(source: Source) -> str:
    """A short description of the files in a source."""
    if not source.names:
        return "no files"
    folders = sorted({str(PurePosixPath(name).parent) for name in source.names} - {"."})
    some = ", ".join(folders[:4]) + (", …" if len(folders) > 4 else "")
    where = f" in {some}" if folders else f", such as {source.names[0]}"
    return f"{len(source.names)} files{where}"
