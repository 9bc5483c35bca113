"""Labels that were renamed, and what a model of before says of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.annotated import refusals, segmentation

from cdal.backend.annotations import to_result
from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.annotations.packing import pack
from cdal.backend.settings import ProjectSettings
from cdal.backend.web.pages.drawing import drawing_of
from cdal.models import Classification, Detections
from cdal.models.predictions import BACKGROUND

CLASSES = ("sky", "car", "truck", BACKGROUND)
SIZE = (4, 4)
FOUND = {
    "Choices": Classification(1, 0.9),
    "RectangleLabels": Detections(
        torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]),
        torch.tensor([1, 2]),
        torch.tensor([0.9, 0.8]),
    ),
    "BrushLabels": segmentation([[1, 1, 3, 3]] * 3 + [[2, 2, 3, 3]]),
    "PolygonLabels": segmentation([[1, 1, 3, 3]] * 3 + [[2, 2, 3, 3]]),
}


@pytest.mark.parametrize("tag", FOUND)
def test_they_are_shown_by_the_labels_of_now(tag: str) -> None:
    kind = "Choice" if tag == "Choices" else "Label"
    config = (
        f'<View><Image name="image" value="$image"/><{tag} name="what" toName="image">'
        f'<{kind} value="sky"/><{kind} value="vehicle" predicted_values="car, truck"/>'
        f"</{tag}></View>"
    )
    control, finding, settings = served_control(config), FOUND[tag], ProjectSettings()
    made: list[Any] = to_result(control, CLASSES, finding, SIZE, settings)
    assert refusals(config, made) == []
    names = [region["value"][tag.lower()] for region in made]
    assert names == [["vehicle"]] * (1 if tag == "Choices" else 2)
    drawn = drawing_of(control, settings, CLASSES, pack(finding, SIZE))
    assert drawn is not None
    assert "vehicle" in drawn.words
