"""The model's prediction for an image, as shapes over its thumbnail."""

from __future__ import annotations

import re

import pytest
import torch

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.annotations.packing import pack
from cdal.backend.settings import ProjectSettings
from cdal.backend.web.pages.drawing import drawing_of
from cdal.models import Classification, Detections, Segmentation

CLASSES = ["cat", "dog", "background"]


def control(tag: str) -> Control:
    label = "Choice" if tag == "Choices" else "Label"
    return served_control(
        f'<View><Image name="image" value="$image"/><{tag} name="label" toName="image">'
        f'<{label} value="cat"/><{label} value="dog"/></{tag}></View>'
    )


def test_a_class() -> None:
    packed = pack(Classification(1, 0.75), (30, 40))
    drawn = drawing_of(control("Choices"), ProjectSettings(), CLASSES, packed)
    assert drawn is not None
    assert (drawn.width, drawn.height, drawn.label) == (40, 30, "dog")
    assert drawn.words == "dog, 75% sure"


def test_boxes_in_pixels_of_the_image() -> None:
    found = Detections(
        boxes=torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 0.9, 0.9], [0.5, 0.5, 0.6, 0.6]]),
        labels=torch.tensor([0, 1, 0]),
        confidences=torch.tensor([0.9, 0.8, 0.1]),  # the last is not sure enough
    )
    settings = ProjectSettings()
    drawn = drawing_of(control("RectangleLabels"), settings, CLASSES, pack(found, (100, 200)))
    assert drawn is not None
    assert [shape.name for shape in drawn.shapes] == ["dog", "cat"]  # the largest first
    assert drawn.shapes[1].path == "M20.0 20.0L100.0 20.0L100.0 60.0L20.0 60.0z"
    assert drawn.words == "1 cat, 1 dog"


def test_a_rotated_box() -> None:
    """It is drawn as it lies in its hull of 80 by 80 pixels."""
    boxes, turns = torch.tensor([[0.1, 0.2, 0.5, 0.6]]), torch.tensor([[0.25, 0.25]])
    found = Detections(boxes, torch.tensor([0]), torch.tensor([0.9]), turns)
    settings = ProjectSettings()
    drawn = drawing_of(control("RectangleLabels"), settings, CLASSES, pack(found, (200, 200)))
    assert drawn is not None
    (shape,) = drawn.shapes
    assert shape.path == "M40.0 40.0L100.0 60.0L80.0 120.0L20.0 100.0z"
    assert (shape.x, shape.y) == pytest.approx((60, 40), abs=0.01)
    assert shape.area == pytest.approx(60**2 + 20**2, rel=1e-3)


def test_regions_with_their_holes() -> None:
    labels = torch.full((20, 20), 2, dtype=torch.uint8)
    labels[2:14, 2:14] = 1
    labels[6:10, 6:10] = 2
    found = Segmentation(labels, torch.full((20, 20), 0.5))
    settings = ProjectSettings()
    drawn = drawing_of(control("BrushLabels"), settings, CLASSES, pack(found, (40, 60)))
    assert drawn is not None
    (shape,) = drawn.shapes
    assert (shape.name, shape.index) == ("dog", 1)
    assert shape.path.count("M") == 2
    assert drawn.words == "dog 32%"
    # Its name is written in it, not in its hole.
    assert not (18 < shape.x < 30 and 12 < shape.y < 20)
    numbers = [float(text) for text in re.findall(r"[0-9.]+", shape.path)]
    xs, ys = numbers[::2], numbers[1::2]
    # Three times as wide and twice as high as the label map, within half a pixel of it.
    assert (min(xs), max(xs)) == (7.5, 40.5)
    assert (min(ys), max(ys)) == (5.0, 27.0)


def test_predictions_of_another_task_are_not_drawn() -> None:
    packed = pack(Classification(0, 0.9), (30, 40))
    assert drawing_of(control("BrushLabels"), ProjectSettings(), CLASSES, packed) is None


def test_nothing_is_confident_enough() -> None:
    none = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    settings = ProjectSettings()
    drawn = drawing_of(control("RectangleLabels"), settings, CLASSES, pack(none, (10, 10)))
    assert drawn is not None
    assert drawn.words == "nothing with enough confidence"
