"""Drawn scenes as labelled images on disk, in the standard layout of each task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cdal.demo.scenes.scene import CLASSES, Scene, draw_scene
from cdal.models.predictions import IGNORED

SIZES: Mapping[str, int] = {
    "classification": 96, "segmentation": 160, "detection": 160, "multilabel": 160,
}  # fmt: skip
"""The side of a scene in pixels, by task; objects to paint or frame should not be tiny."""


def write_scenes(
    folder: Path,
    task: str,
    count: int,
    seed: int = 0,
    test_share: float = 0.25,
    size: int | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Draw scenes, and write them in a layout that ``cdal.datasets`` reads.

    Args:
        folder: is created if needed; files of the same names are overwritten.
        task: the task that they are labelled for.
        count: the number of scenes, including test scenes, which come last.
        seed: the seed of the series.
        test_share: the share of test scenes.
        size: their side in pixels; None: the task's.
        progress: called with the completed share, in [0, 1].
    """
    write = {
        "classification": _in_class_folder,
        "segmentation": _with_mask,
        "detection": _with_annotation,
        "multilabel": _with_annotation,  # which classes an image shows is read from its boxes
    }[task]
    first_test = count - round(count * test_share)
    folder.mkdir(parents=True, exist_ok=True)
    if task == "segmentation":
        (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    if write is _with_annotation:
        for split, rows in (("train", range(first_test)), ("test", range(first_test, count))):
            _write(folder / f"ImageSets/Main/{split}.txt", "".join(f"{row:04}\n" for row in rows))
    for index in range(count):
        scene = draw_scene(seed, index, size or SIZES[task])
        write(folder, "train" if index < first_test else "test", f"{index:04}", scene)
        progress((index + 1) / count)


def _in_class_folder(folder: Path, split: str, name: str, scene: Scene) -> None:
    _save(folder / split / scene.label / f"{name}.png", scene.image)


def _with_mask(folder: Path, split: str, name: str, scene: Scene) -> None:
    _save(folder / split / "images" / f"{name}.png", scene.image)
    # In a scene's mask, class i has the value i + 1, and 0 is background.
    mask = np.where(scene.mask == 0, np.uint8(IGNORED), scene.mask - np.uint8(1))
    _save(folder / split / "masks" / f"{name}.png", mask)


def _with_annotation(folder: Path, _split: str, name: str, scene: Scene) -> None:
    _save(folder / "JPEGImages" / f"{name}.png", scene.image)
    objects = "".join(
        f"<object><name>{item.name}</name><bndbox>"
        # VOC counts pixels from 1, and the box includes the last one.
        f"<xmin>{item.box[0] + 1}</xmin><ymin>{item.box[1] + 1}</ymin>"
        f"<xmax>{item.box[2]}</xmax><ymax>{item.box[3]}</ymax></bndbox></object>"
        for item in scene.objects
    )
    _write(folder / "Annotations" / f"{name}.xml", f"<annotation>{objects}</annotation>\n")


def _save(file: Path, pixels: npt.NDArray[np.uint8]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
