"""RectangleLabels: predictions out, boxes in."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.annotated import LABELS, config_of, control_of, read, reading, refusals, region
from torch import Tensor

from cdal.backend.annotations import Reading, read_annotations, rectangles
from cdal.backend.annotations.packing import pack, unpack
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import BACKGROUND, Detections

TAG = "RectangleLabels"
SETTINGS = ProjectSettings()
SIZE = (200, 400)


def box(x: Any, y: Any, width: Any, height: Any, label: str = "car", **more: Any) -> Any:
    value = {"x": x, "y": y, "width": width, "height": height, "rectanglelabels": [label]}
    return region(TAG, {**value, **more}, SIZE)


def target(*regions: Any) -> Tensor:
    return read(TAG, regions).target(*SIZE)


def detections(*boxes: tuple[float, ...]) -> Detections:
    """Each is left, top, right, bottom, class, confidence."""
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
    return Detections(rows[:, :4], rows[:, 4].long(), rows[:, 5])


def predicted(finding: Any, attributes: str = "", **more: Any) -> list[Any]:
    control = control_of(TAG, attributes=attributes)
    result = rectangles.to_result(control, more.get("classes", LABELS), finding, SIZE, SETTINGS)
    assert refusals(config_of(TAG), result) == []
    return result


def test_label_studio_accepts_the_prediction() -> None:
    assert predicted(detections((0.25, 0.5, 0.75, 1.0, 1, 0.87654), (0, 0, 1, 1, 2, 0.5))) == [
        {
            "id": "box0",
            "from_name": "what",
            "to_name": "image",
            "type": "rectanglelabels",
            "original_width": 400,
            "original_height": 200,
            "image_rotation": 0,
            "value": {
                "x": 25.0,
                "y": 50.0,
                "width": 50.0,
                "height": 50.0,
                "rotation": 0,
                "rectanglelabels": ["road"],
            },
            "score": 0.8765,
        },
        {
            "id": "box1",
            "from_name": "what",
            "to_name": "image",
            "type": "rectanglelabels",
            "original_width": 400,
            "original_height": 200,
            "image_rotation": 0,
            "value": {
                "x": 0.0,
                "y": 0.0,
                "width": 100.0,
                "height": 100.0,
                "rotation": 0,
                "rectanglelabels": ["car"],
            },
            "score": 0.5,
        },
    ]


def test_what_is_predicted_is_what_is_read() -> None:
    boxes = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * 0.7
    whole = torch.cat((boxes, boxes + 0.3), 1)
    finding = Detections(whole, torch.arange(50) % 3, torch.full((50,), 0.9))
    truth = read(TAG, predicted(finding))
    expected = torch.cat((whole * torch.tensor([400, 200, 400, 200]), finding.labels[:, None]), 1)
    torch.testing.assert_close(truth.target(*SIZE), expected, atol=1e-3, rtol=0)
    assert truth.target(*SIZE).dtype == torch.float32
    assert truth.warnings == ()


@pytest.mark.parametrize(
    ("attributes", "scores"),
    [
        ("", [0.9, 0.3]),
        ('model_score_threshold="0.5"', [0.9]),
        ('model_score_threshold="0"', [0.9, 0.3, 0.29]),
    ],
)
def test_boxes_below_the_threshold_are_not_shown(attributes: str, scores: list[float]) -> None:
    finding = detections(*((0, 0, 1, 1, 0, score) for score in (0.9, 0.30001, 0.29)))
    assert [item["score"] for item in predicted(finding, attributes)] == scores


def test_classes_without_a_label_are_not_shown() -> None:
    finding = detections(*((0, 0, 1, 1, index, 0.9) for index in range(3)))
    result = predicted(finding, classes=("sky", "river", BACKGROUND))
    assert [item["value"]["rectanglelabels"] for item in result] == [["sky"]]


def test_empty_boxes_are_not_shown() -> None:
    assert predicted(detections((0.5, 0.5, 0.5, 0.9, 0, 0.9), (0.5, 0.5, 0.4, 0.9, 0, 0.9))) == []


def test_boxes_are_clipped_to_the_image() -> None:
    assert target(box(-10, 50, 30, 80)).tolist() == [[0, 100, 80, 200, 2]]


@pytest.mark.parametrize(
    "tiny",
    [
        box(10, 10, 0, 10),
        box(10, 10, 0.2, 10),  # 0.8 pixels
        box(10, 10, 10, 0.4),
        box(100, 10, 10, 10),
        box(99.9, 10, 10, 10),
        box(200, 10, 10, 10),
        box(0, 10, -10, 10),
    ],
)
def test_boxes_that_cover_nothing_are_omitted_and_counted(tiny: Any) -> None:
    found = reading(TAG, [tiny, box(10, 10, 10, 10)])
    assert found.truth is not None
    assert found.truth.target(*SIZE).tolist() == [[40, 20, 80, 40, 2]]
    assert found.left_out == ("less than a pixel wide or high",)
    assert reading(TAG, [tiny]).truth is None


@pytest.mark.parametrize(
    "damaged",
    [
        box(math.nan, 10, 10, 10),
        box(10, math.inf, 10, 10),
        box("10", 10, 10, 10),
        box(True, 10, 10, 10),
        box(None, 10, 10, 10),
        box(10**400, 10, 10, 10),
        box(1e308, 1e308, 1e308, 1e308, rotation=30),
        box(10, 10, 10, 10, rotation="x"),
        box(10, 10, 10, 10, rotation=math.nan),
    ],
)
def test_an_image_with_a_damaged_box_teaches_nothing(damaged: Any) -> None:
    """Nobody knows where the object is, and the detector would learn that it is nowhere."""
    found = reading(TAG, [damaged, box(10, 10, 10, 10)])
    assert found == Reading(None, ("damaged",), frozenset({SIZE}))


@pytest.mark.parametrize(
    ("turned", "corners"),
    [
        (box(50, 50, -25, 10), [100, 100, 200, 120]),
        (box(10, 96, 10, -60), [40, 72, 80, 192]),
        (box(50, 50, -25, -25), [100, 50, 200, 100]),
        (box(20, 20, -5, -10, rotation=180), [80, 40, 100, 60]),
    ],
)
def test_negative_sizes_are_turned_around(turned: Any, corners: list[float]) -> None:
    expected = torch.tensor([[*map(float, corners), 2.0]])
    torch.testing.assert_close(target(turned), expected, atol=1e-3, rtol=0)


def test_a_box_of_one_pixel_counts() -> None:
    assert target(box(10, 10, 0.25, 0.5)).tolist() == [[40, 20, 41, 21, 2]]


def test_an_image_without_boxes_is_a_negative() -> None:
    truth = read(TAG, [])
    assert truth.target(*SIZE).shape == (0, 5)
    assert truth.target(*SIZE).dtype == torch.float32
    assert truth.classes == frozenset()


def test_an_image_with_a_box_of_an_unknown_label_is_not_a_negative() -> None:
    river = box(10, 10, 10, 10, label="river")
    for regions in ([river], [river, box(10, 10, 10, 10)]):
        found = reading(TAG, regions)
        assert found.truth is None
        assert found.left_out == ('with the unknown label "river"',)


def test_a_box_that_is_there_twice_is_one_object() -> None:
    """As after copying and pasting: a detector cannot find two objects at one place."""
    one, other = box(10, 10, 10, 10), box(10, 10, 10, 10, "sky")
    assert target(one, other, one).tolist() == target(one, other).tolist()
    assert len(target(one, other)) == 2


def test_an_image_with_more_boxes_than_memory_allows_teaches_nothing() -> None:
    """A detector compares each box with each of thousands of places."""
    boxes = [box(0, 0, 10, 10 + number / 100) for number in range(rectangles.MOST_BOXES)]
    assert len(target(*boxes)) == rectangles.MOST_BOXES
    found = reading(TAG, [*boxes, box(50, 50, 10, 10)])
    assert found.truth is None
    assert len(found.left_out) == rectangles.MOST_BOXES + 1
    assert set(found.left_out) == {"among more than 2,000 of one image"}


def test_a_quarter_turn_is_about_the_top_left_corner() -> None:
    """From (80, 40), 120 pixels wide and 40 high: now left of and below its corner."""
    truth = read(TAG, [box(20, 20, 30, 20, rotation=90)])
    torch.testing.assert_close(
        truth.target(*SIZE), torch.tensor([[40.0, 40, 80, 160, 2]]), atol=1e-3, rtol=0
    )
    assert truth.warnings == ()


def test_a_rotated_box_is_its_hull_and_its_turn() -> None:
    """A square of 40√2 pixels, turned by 45° about (200, 40), is a diamond of 80 by 80."""
    side = 40 * math.sqrt(2)
    turned = box(50, 20, side / 4, side / 2, rotation=45)
    truth = read(TAG, [turned])
    torch.testing.assert_close(
        truth.target(*SIZE), torch.tensor([[160.0, 40, 240, 120, 2, 0.5, 0.5]]), atol=1e-3, rtol=0
    )
    both = read(TAG, [turned, box(10, 10, 10, 10)])
    assert both.target(*SIZE)[1].tolist() == [40, 20, 80, 40, 2, 0, 0]
    assert len({truth.digest(), both.digest(), read(TAG, [box(40, 20, 20, 40)]).digest()}) == 3
    assert truth.warnings == ("A rotated box was taken as its upright hull.",)
    again = read(TAG, [turned, turned, box(10, 10, 10, 10)])
    assert again.warnings == ("2 rotated boxes were taken as their upright hulls.",)


@pytest.mark.parametrize("angle", [1, 30, 45, 60, 89, 91, 135, 200, 300, 359, -30])
@pytest.mark.parametrize("sides", [(12, 40), (20, 10)])
def test_a_rotated_box_comes_back_as_it_went(angle: float, sides: tuple[int, int]) -> None:
    """The same rectangle, turned by at most 45 degrees."""
    drawn = box(50, 50, *sides, rotation=angle)
    truth = read(TAG, [drawn, box(10, 10, 10, 10)]).target(*SIZE)
    hulls = truth[:, :4] / torch.tensor([400, 200, 400, 200])
    finding = Detections(hulls, truth[:, 4].long(), torch.ones(2), truth[:, 5:])
    said, upright = predicted(unpack(pack(finding, SIZE))[0])
    torch.testing.assert_close(read(TAG, [said]).target(*SIZE), truth[:1], atol=0.02, rtol=0)
    corners, others = (rectangles.corners_of(item["value"], 0.5) for item in (drawn, said))
    for x, y in corners:
        assert min(math.hypot(x - a, y - b) for a, b in others) < 0.01
    assert min(said["value"]["rotation"], 360 - said["value"]["rotation"]) <= 45
    assert upright["value"]["rotation"] == 0


def test_a_rotated_box_that_leaves_the_image_is_cut_off() -> None:
    found = target(box(90, 80, 20, 20, rotation=30))
    left, top, right, bottom = found[0, :4].tolist()
    assert (right, bottom) == (400, 200)
    assert 300 < left < 400
    assert top == pytest.approx(160)
    assert ((found[:, 5:] >= 0) & (found[:, 5:] <= 1)).all()


def test_an_angle_means_nothing_without_the_images_proportions() -> None:
    turned = box(50, 20, 10, 10, rotation=45)
    upright = box(50, 20, 10, 10)
    for item in (turned, upright):
        del item["original_width"]
    torch.testing.assert_close(target(upright), torch.tensor([[200.0, 40, 240, 60, 2]]))
    found = reading(TAG, [turned, upright])
    assert found.truth is None
    assert found.left_out == ("that is rotated, without the image's size",)


def test_the_digest_changes_with_the_annotation() -> None:
    said = [
        [],
        [box(10, 10, 10, 10)],
        [box(10, 10, 10, 11)],
        [box(10, 10, 10, 10, "sky")],
        [box(10, 10, 10, 10), box(10, 20, 10, 10)],
    ]
    assert len({read(TAG, result).digest() for result in said}) == len(said)
    moved = {**box(10, 10, 10, 10), "id": "another"}
    assert read(TAG, [moved]).digest() == read(TAG, said[1]).digest()
    assert read(TAG, said[3]).classes == {"sky"}


@pytest.mark.parametrize(
    "removed",
    [
        {"from_name": "shape", "type": "rectangle", "value": {"x": 1, "y": 1}},
        {"from_name": "outline", "type": "polygonlabels", "value": {"polygonlabels": ["car"]}},
    ],
)
def test_an_image_drawn_on_with_a_control_that_was_removed_teaches_nothing(removed: Any) -> None:
    found = reading(TAG, [removed, box(10, 10, 10, 10)])
    assert found.truth is None
    assert removed["from_name"] in found.left_out[0]
    comment = {"from_name": "comment", "type": "textarea", "value": {"text": ["dark"]}}
    assert reading(TAG, [comment, box(10, 10, 10, 10)]).truth is not None


def test_a_box_of_a_known_and_an_unknown_label_teaches_nothing() -> None:
    two = box(10, 10, 10, 10)
    two["value"]["rectanglelabels"] = ["car", "zebra"]
    found = reading(TAG, [two])
    assert found.truth is None
    assert "zebra" in found.left_out[0]


@pytest.mark.parametrize("result", [None, "", {}])
def test_without_a_list_of_regions_an_image_is_not_negative(result: Any) -> None:
    found = read_annotations(control_of(TAG), [{"result": result}], SETTINGS)
    assert found.truth is None
    assert len(found.left_out) == 1
    empty = read_annotations(control_of(TAG), [{"result": []}], SETTINGS).truth
    assert empty is not None
    assert empty.classes == frozenset()
