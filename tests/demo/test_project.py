"""The labeling configs that the demo writes; what it does in Label Studio is in test_loop.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from cdal.datasets import ImageSet, open_images
from cdal.demo.project import LABELING_CONFIGS, project_settings
from cdal.demo.scenes.files import write_scenes

TAGS = {
    "classification": "Choices",
    "segmentation": "BrushLabels",
    "detection": "RectangleLabels",
}


@pytest.mark.parametrize("task", TAGS)
@pytest.mark.parametrize(
    "classes",
    [["cat", "dog"], ['"quoted"', "<b>", "a & b", "it's"], ["Katze", "čáp", "猫"], [" a", "a "]],
)
def test_whatever_the_classes_are_called(task: str, classes: list[str]) -> None:
    interface = LabelInterface(LABELING_CONFIGS[task](classes))
    (control,) = interface.controls
    (image,) = interface.objects
    assert list(control.labels) == classes
    assert (control.tag, control.name, control.to_name) == (TAGS[task], "label", ["image"])
    assert (image.tag, image.name, image.value) == ("Image", "image", "$image")


def masks_with(folder: Path, uncovered: int, count: int = 4) -> ImageSet:
    """Images of 100 pixels, so many of which are of no class."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    (folder / "classes.txt").write_text("road")
    mask = np.zeros(100, np.uint8)
    mask[:uncovered] = 255
    for row in range(count):
        Image.new("RGB", (10, 10)).save(folder / f"images/{row}.png")
        Image.fromarray(mask.reshape(10, 10)).save(folder / f"masks/{row}.png")
    return open_images(folder)


@pytest.mark.parametrize(("uncovered", "ignored"), [(0, True), (19, True), (20, False)])
def test_bare_pixels_are_ignored_where_they_are_few(
    tmp_path: Path, uncovered: int, ignored: bool
) -> None:
    images = masks_with(tmp_path, uncovered)
    settings = project_settings(images, images.train, None)
    assert settings.get("unlabelled") == ("ignore" if ignored else None)


@pytest.mark.parametrize(
    ("count", "asked", "budget"), [(4, None, 10), (300, None, 20), (1500, None, 100), (4, 12, 12)]
)
def test_budget(tmp_path: Path, count: int, asked: int | None, budget: int) -> None:
    write_scenes(tmp_path, "detection", 8, size=32)
    images = open_images(tmp_path)
    to_label = [images.train[0]] * count
    assert project_settings(images, to_label, asked) == {"budget": budget}


@pytest.mark.parametrize(("asked", "min_labels"), [(9, 9), (2, 2), (1, 2)])
def test_a_small_budget_is_enough_to_train(tmp_path: Path, asked: int, min_labels: int) -> None:
    write_scenes(tmp_path, "detection", 8, size=32)
    images = open_images(tmp_path)
    settings = project_settings(images, images.train, asked)
    assert settings == {"budget": asked, "min_labels": min_labels}
