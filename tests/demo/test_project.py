"""Labeling configs and project settings; test_loop.py tests projects in Label Studio."""

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
    "multilabel": "Choices",
}


@pytest.mark.parametrize("task", TAGS)
@pytest.mark.parametrize(
    "classes",
    [["cat", "dog"], ['"quoted"', "<b>", "a & b", "it's"], ["Katze", "čáp", "猫"], [" a", "a "]],
)
def test_class_names_may_be_any_text(task: str, classes: list[str]) -> None:
    interface = LabelInterface(LABELING_CONFIGS[task](classes))
    (control,) = interface.controls
    (image,) = interface.objects
    assert list(control.labels) == classes
    assert (control.tag, control.name, control.to_name) == (TAGS[task], "label", ["image"])
    assert (image.tag, image.name, image.value) == ("Image", "image", "$image")


def masks_with(folder: Path, unlabelled: int, count: int = 4) -> ImageSet:
    """Images of 100 pixels, of which this many have no class."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    (folder / "classes.txt").write_text("road")
    mask = np.zeros(100, np.uint8)
    mask[:unlabelled] = 255
    for row in range(count):
        Image.new("RGB", (10, 10)).save(folder / f"images/{row}.png")
        Image.fromarray(mask.reshape(10, 10)).save(folder / f"masks/{row}.png")
    return open_images(folder)


@pytest.mark.parametrize(("unlabelled", "ignored"), [(0, True), (19, True), (20, False)])
def test_a_few_unlabelled_pixels_are_ignored(
    tmp_path: Path, unlabelled: int, ignored: bool
) -> None:
    images = masks_with(tmp_path, unlabelled)
    settings = project_settings(images, images.train, None)
    assert settings.get("unlabelled") == ("ignore" if ignored else None)


@pytest.mark.parametrize(
    ("count", "given", "budget"), [(4, None, 10), (300, None, 20), (1500, None, 100), (4, 12, 12)]
)
def test_budget(tmp_path: Path, count: int, given: int | None, budget: int) -> None:
    write_scenes(tmp_path, "detection", 8, size=32)
    images = open_images(tmp_path)
    to_label = [images.train[0]] * count
    assert project_settings(images, to_label, given) == {"budget": budget}


@pytest.mark.parametrize(
    ("selector", "settings"),
    [
        (None, {}),
        ("margin", {"selector": "margin"}),
        ("random", {"selector": "random", "first_round": "random"}),
    ],
)
def test_with_random_selection_the_first_round_is_random_too(
    tmp_path: Path, selector: str | None, settings: dict[str, str]
) -> None:
    write_scenes(tmp_path, "detection", 8, size=32)
    images = open_images(tmp_path)
    assert project_settings(images, images.train, 12, selector) == {"budget": 12, **settings}


@pytest.mark.parametrize(("given", "min_labels"), [(9, 9), (2, 2), (1, 2)])
def test_a_small_budget_lowers_min_labels(tmp_path: Path, given: int, min_labels: int) -> None:
    write_scenes(tmp_path, "detection", 8, size=32)
    images = open_images(tmp_path)
    settings = project_settings(images, images.train, given)
    assert settings == {"budget": given, "min_labels": min_labels}
