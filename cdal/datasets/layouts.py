"""Which layout a folder or zip has, found by what is in it."""

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
    """How labelled images for one task lie in folders.

    Attributes:
        called: in a sentence.
        needed: what there must be.
        fits: whether a source looks like it.
        read: what reads it, with the seed of the test share.
    """

    called: str
    needed: str
    fits: Callable[[Source], bool]
    read: Callable[[Source, int], ImageSet]


# In this order, since the images of the others are in folders, too.
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
    """The labelled images of a folder or zip.

    Args:
        path: of the folder or zip.
        task: what they must be for; None: whatever their layout is for.
        seed: of the share that is held back to test with, where no split says what is.

    Raises:
        DatasetError: there are none, or they are for another task; the message is a sentence
            that says what was found and what is needed.
    """
    source = open_source(path)
    found = next((name for name, layout in LAYOUTS.items() if layout.fits(source)), None)
    if found is None:
        wanted = [f"{LAYOUTS[name].needed} ({name})" for name in ([task] if task else TASKS)]
        raise DatasetError(f"{path} holds {_contents(source)}. Needed is {'; or '.join(wanted)}.")
    if task is not None and task != found:
        raise DatasetError(
            f"{path} holds {LAYOUTS[found].called}, which is for {found}; {task} needs "
            f"{LAYOUTS[task].needed}."
        )
    return LAYOUTS[found].read(source, seed)


def _contents(source: Source) -> str:
    """What there is, in a few words."""
    if not source.names:
        return "no files"
    folders = sorted({str(PurePosixPath(name).parent) for name in source.names} - {"."})
    some = ", ".join(folders[:4]) + (", …" if len(folders) > 4 else "")
    where = f" in {some}" if folders else f", such as {source.names[0]}"
    return f"{len(source.names)} files{where}"
