"""The labeling config that the demo writes; what it does in Label Studio is in test_loop.py."""

from __future__ import annotations

import pytest
from label_studio_sdk.label_interface import LabelInterface

from cdal.demo.project import choices_config


@pytest.mark.parametrize(
    "classes",
    [["cat", "dog"], ['"quoted"', "<b>", "a & b", "it's"], ["Katze", "čáp", "猫"], [" a", "a "]],
)
def test_whatever_the_classes_are_called(classes: list[str]) -> None:
    interface = LabelInterface(choices_config(classes))
    (control,) = interface.controls
    (image,) = interface.objects
    assert list(control.labels) == classes
    assert (control.tag, control.name, control.to_name) == ("Choices", "label", ["image"])
    assert (image.tag, image.name, image.value) == ("Image", "image", "$image")
