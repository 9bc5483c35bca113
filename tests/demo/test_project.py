"""The labeling configs that the demo writes; what it does in Label Studio is in test_loop.py."""

from __future__ import annotations

import pytest
from label_studio_sdk.label_interface import LabelInterface

from cdal.demo.project import LABELING_CONFIGS

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
