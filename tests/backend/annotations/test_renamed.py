"""Renamed labels: predictions of an older model, and older annotations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from label_studio_sdk.converter.brush import mask2rle
from support.annotated import png_of, refusals, region, segmentation

from cdal.backend.annotations import Reading, read_annotations, to_result
from cdal.backend.annotations.control import Control
from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.annotations.packing import pack
from cdal.backend.settings import ProjectSettings
from cdal.backend.web.pages.drawing import drawing_of
from cdal.models import Classification, Detections
from cdal.models.predictions import BACKGROUND, IGNORED

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
    "BitmaskLabels": segmentation([[1, 1, 3, 3]] * 3 + [[2, 2, 3, 3]]),
    "PolygonLabels": segmentation([[1, 1, 3, 3]] * 3 + [[2, 2, 3, 3]]),
}


@pytest.mark.parametrize("tag", FOUND)
def test_predictions_use_the_current_labels(tag: str) -> None:
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


# Annotations of before.


def control_of(tag: str, *labels: str, more: str = "") -> Control:
    """A control with labels of these attributes."""
    kind = "Choice" if tag == "Choices" else "Label"
    inner = "".join(f"<{kind} {label}/>" for label in labels)
    return served_control(
        f'<View><Image name="image" value="$image"/><{tag} name="what" toName="image">{inner}'
        f"</{tag}>{more}</View>"
    )


LEFT = np.array([[255, 255, 0, 0]] * 4, np.uint8)
VALUES: dict[str, dict[str, Any]] = {
    "Choices": {},
    "RectangleLabels": {"x": 0, "y": 0, "width": 50, "height": 100},
    "BrushLabels": {"format": "rle", "rle": mask2rle(LEFT)},
    "BitmaskLabels": {"imageDataURL": png_of(LEFT)},
    "PolygonLabels": {"points": [[0, 0], [50, 0], [50, 100], [0, 100]]},
}
"""The left half of an image, as each control has it."""


def left_half(tag: str, *labels: str) -> dict[str, Any]:
    return region(tag, {**VALUES[tag], tag.lower(): list(labels)}, SIZE)


def read(control: Control, *regions: dict[str, Any], **settings: Any) -> Reading:
    return read_annotations(control, [{"result": list(regions)}], ProjectSettings(**settings))


CAR = 'value="vehicle" predicted_values="truck, car"'


@pytest.mark.parametrize("tag", VALUES)
@pytest.mark.parametrize(
    ("label", "said"),
    [
        (CAR, "car"),
        (CAR, "vehicle"),
        (CAR, "truck"),
        (CAR, "Car"),
        (CAR, " VEHICLE "),
        ('value="car" alias="vehicle"', "car"),  # the alias is new
        ('value="car" alias="vehicle"', "vehicle"),
        ('value="auto" alias="vehicle" predicted_values="car"', "car"),
        ('value="vehicle" predicted_values="caf\u00e9 car"', "cafe\u0301\u00a0 car"),
    ],
)
def test_annotations_under_a_former_name_count_for_the_label(
    tag: str, label: str, said: str
) -> None:
    found = read(control_of(tag, 'value="sky"', label), left_half(tag, said))
    assert found.left_out == ()
    assert found.truth is not None
    assert found.truth.classes == {"vehicle"}
    now = read(control_of(tag, 'value="sky"', label), left_half(tag, "vehicle")).truth
    assert now is not None
    assert now.digest() == found.truth.digest()
    assert torch.equal(found.truth.target(*SIZE), now.target(*SIZE))


@pytest.mark.parametrize("tag", VALUES)
@pytest.mark.parametrize("said", ["wolf", "Cat", ""])
def test_nothing_is_learnt_from_what_an_unknown_label_covers(tag: str, said: str) -> None:
    """Two labels differ from "Cat" only in case, so it is neither."""
    control = control_of(tag, 'value="CAT"', 'value="cat"', 'value="dog"')
    found = read(control, left_half(tag, said))
    assert found == Reading(None, (f'with the unknown label "{said}"',), found.sizes)


@pytest.mark.parametrize("tag", ["BrushLabels", "PolygonLabels"])
@pytest.mark.parametrize("unlabelled", ["background", "ignore"])
def test_the_pixels_of_an_unknown_label_are_ignored(tag: str, unlabelled: Any) -> None:
    control = control_of(tag, 'value="cat"', 'value="dog"')
    (top,) = [left_half("PolygonLabels", "dog")]
    top["value"]["points"] = [[0, 0], [100, 0], [100, 25], [0, 25]]
    if tag == "BrushLabels":
        rows = np.zeros((4, 4), np.uint8)
        rows[0] = 255
        top = region(tag, {"format": "rle", "rle": mask2rle(rows), "brushlabels": ["dog"]}, SIZE)
    uncovered = 2 if unlabelled == "background" else IGNORED
    found = read(control, left_half(tag, "wolf"), top, unlabelled=unlabelled).truth
    assert found is not None
    rest = [[IGNORED, IGNORED, uncovered, uncovered]] * 3
    assert found.target(*SIZE).tolist() == [[1] * 4, *rest]
    below = read(control, top, left_half(tag, "wolf"), unlabelled=unlabelled).truth
    assert below is not None
    assert below.target(*SIZE)[0].tolist() == [IGNORED, IGNORED, 1, 1]
    assert below.digest() != found.digest()


@pytest.mark.parametrize("tag", VALUES)
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"from_name": "old"}, 'of a control "old", which is not there'),
        ({"type": "ellipselabels"}, 'of the type "ellipselabels", not "{tag}"'),
        ({"value": None}, "damaged"),
    ],
)
def test_regions_of_an_unknown_control_or_type_are_not_background(
    tag: str, change: dict[str, Any], why: str
) -> None:
    control = control_of(tag, 'value="cat"', 'value="dog"')
    found = read(control, {**left_half(tag, "cat"), **change})
    assert found.truth is None
    assert found.left_out == (why.format(tag=tag.lower()),)


@pytest.mark.parametrize("tag", VALUES)
def test_regions_of_other_controls_are_ignored(tag: str) -> None:
    kind = "Choice" if tag == "Choices" else "Label"
    labels = f'<{kind} value="cat"/><{kind} value="dog"/>'
    controls = "".join(
        f'<{tag} name="{name}" toName="image">{labels}</{tag}>' for name in ("what", "other")
    )
    note = '<TextArea name="note" toName="image"/>'
    config = f'<View><Image name="image" value="$image"/>{controls}{note}</View>'
    others = [
        {**left_half(tag, "dog"), "from_name": "other"},
        {"from_name": "note", "type": "textarea", "value": {"text": ["x"]}},
        {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
    ]
    found = read(served_control(config, "what"), left_half(tag, "cat"), *others)
    assert found.left_out == ()
    assert found.truth is not None
    assert found.truth.classes == {"cat"}


@pytest.mark.parametrize("tag", ["RectangleLabels", "BrushLabels", "PolygonLabels"])
def test_a_region_of_several_labels_teaches_nothing(tag: str) -> None:
    control = control_of(tag, 'value="cat"', 'value="dog" predicted_values="puppy"')
    found = read(control, left_half(tag, "cat", "dog"))
    assert found == Reading(None, ("with several labels",), found.sizes)
    same = read(control, left_half(tag, "dog", "puppy")).truth
    assert same is not None
    assert same.classes == {"dog"}
    without = read(control, left_half(tag))
    assert without == Reading(None, ("without a label",), found.sizes)
