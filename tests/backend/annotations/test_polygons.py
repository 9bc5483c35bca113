"""PolygonLabels: predictions out, masks in."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from support.annotated import mean_iou, predicted, read, reading, region, returned, segmentation

from cdal.demo.scenes.scene import CLASSES, draw_scene
from cdal.models.predictions import IGNORED

TAG = "PolygonLabels"


def polygon(points: Any, label: str = "car") -> Any:
    return region(TAG, {"points": points, "polygonlabels": [label]}, (10, 10))


def test_label_studio_accepts_the_prediction() -> None:
    labels = np.full((10, 20), 3)
    labels[2:4, 5:10] = 1
    finding = segmentation(labels, [[0.123456]])
    (made,) = predicted(TAG, finding, size=(100, 200))
    assert sorted(made["value"].pop("points")) == [[25, 20], [25, 40], [50, 20], [50, 40]]
    assert made == {
        "id": "polygon0",
        "from_name": "what",
        "to_name": "image",
        "type": "polygonlabels",
        "original_width": 200,
        "original_height": 100,
        "image_rotation": 0,
        "value": {"closed": True, "polygonlabels": ["road"]},
        "score": 0.1235,
    }


def test_each_part_is_a_polygon() -> None:
    labels = [[0, 3, 0, 0, 0, 3, 1, 1, 3]]
    made = predicted(TAG, segmentation(labels, [[0.2, 0.4, 0.6]]), smallest_region=0.0)
    names = [(item["value"]["polygonlabels"][0], item["score"]) for item in made]
    assert names == [("sky", 0.3333), ("road", 0.6), ("sky", 0.2)]
    shown = predicted(
        TAG,
        segmentation(labels, [[0.2, 0.4, 0.6]]),
        attributes='model_score_threshold="0.3"',
        smallest_region=0.0,
    )
    assert [item["score"] for item in shown] == [0.3333, 0.6]


def ring(inside: int) -> npt.NDArray[np.uint8]:
    """A square of class 0 on background, with a square hole."""
    labels = np.full((20, 20), 3, np.uint8)
    labels[2:18, 2:18] = 0
    labels[6:14, 6:14] = inside
    return labels


def test_what_fills_a_hole_is_drawn_over_it() -> None:
    made = predicted(TAG, segmentation(ring(1)))
    assert [item["value"]["polygonlabels"][0] for item in made] == ["sky", "road"]
    assert [len(item["value"]["points"]) for item in made] == [4, 4]
    assert (returned(TAG, segmentation(ring(1))) == ring(1)).all()


def test_a_hole_of_background_is_kept_by_a_bridge() -> None:
    (made,) = predicted(TAG, segmentation(ring(3)))
    outline = {(10, 10), (10, 90), (90, 90), (90, 10)}
    hole = {(30, 30), (30, 70), (70, 70), (70, 30)}
    points = [tuple(point) for point in made["value"]["points"]]
    assert set(points) == outline | hole
    assert len(points) == 4 + 1 + 4 + 1
    assert (returned(TAG, segmentation(ring(3))) == ring(3)).all()


def test_several_holes_are_kept() -> None:
    labels = np.zeros((30, 30), np.uint8)
    for top in (3, 12, 21):
        for left in (3, 12, 21):
            labels[top : top + 4, left : left + 4] = 3
    assert (returned(TAG, segmentation(labels)) == labels).all()


def test_rings_within_rings() -> None:
    labels = np.full((40, 40), 3, np.uint8)
    for depth, value in enumerate((0, 1, 0, 3, 0, 1, 2)):
        labels[2 + 2 * depth : 38 - 2 * depth, 2 + 2 * depth : 38 - 2 * depth] = value
    assert (returned(TAG, segmentation(labels)) == labels).all()


@pytest.mark.slow
@pytest.mark.parametrize("side", [96, 256])
def test_drawn_scenes_lose_at_most_one_per_cent(side: int) -> None:
    for index in range(12):
        mask = draw_scene(seed=0, index=index, size=side).mask
        labels = np.where(mask == 0, len(CLASSES), mask - 1).astype(np.uint8)
        back = returned(TAG, segmentation(labels), CLASSES, smallest_region=0.0)
        assert mean_iou(back, labels) >= 0.99


def scribbled(draws: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A label map of any size with discs, rings, triangles and lines of 0 to 3 over each other.

    Of 3, which is background, are holes and cuts.
    """
    height, width = (int(side) for side in draws.integers(1, 200, 2))
    labels = np.full((height, width), 3, np.uint8)
    for _ in range(int(draws.integers(1, 9))):
        value = int(draws.integers(0, 4))
        points = draws.integers(0, (width, height), (3, 2)).astype(np.int32)
        radius, line = int(draws.integers(1, 60)), int(draws.integers(1, 5))
        kind = draws.integers(0, 4)
        if kind == 0:
            cv2.circle(labels, points[0].tolist(), radius, value, -1)
        elif kind == 1:
            cv2.circle(labels, points[0].tolist(), radius, value, line)
        elif kind == 2:
            cv2.fillPoly(labels, [points], [value])
        else:
            cv2.polylines(labels, [points], isClosed=False, color=[value], thickness=line)
    return labels


@pytest.mark.slow
def test_no_class_of_a_scribbled_map_loses_more_than_one_per_cent() -> None:
    draws = np.random.default_rng(0)
    for _ in range(150):
        labels = scribbled(draws)
        back = returned(TAG, segmentation(labels), smallest_region=0.0)
        for value in np.unique(labels):
            one, other = back == value, labels == value
            assert (one & other).sum() / (one | other).sum() >= 0.99


@pytest.mark.data
@pytest.mark.slow
def test_real_masks_lose_at_most_one_per_cent(camvid_masks: list[npt.NDArray[np.uint8]]) -> None:
    names = [f"class {index}" for index in range(11)]
    for mask in camvid_masks:
        exact = returned(TAG, segmentation(mask), names, polygon_tolerance=0.0)
        back = returned(TAG, segmentation(mask), names)
        assert mean_iou(back, exact) >= 0.99


def points_of(mask: npt.NDArray[np.uint8], tolerance: float) -> int:
    names = [f"class {index}" for index in range(11)]
    result = predicted(TAG, segmentation(mask), labels=names, polygon_tolerance=tolerance)
    return sum(len(item["value"]["points"]) for item in result)


@pytest.mark.data
def test_more_tolerance_makes_fewer_points(camvid_masks: list[npt.NDArray[np.uint8]]) -> None:
    counts = [points_of(camvid_masks[0], tolerance) for tolerance in (0.0, 1.0, 5.0, 50.0)]
    assert counts == sorted(set(counts), reverse=True)


def test_a_disc_needs_few_points() -> None:
    """Its outline is halved again and again, until the chords are near enough.

    A tolerance of 5 is one of 1.6 for this disc, whose area is 15.7 times its perimeter along the
    edges of pixels (5 · 15.7 / 50): 8 chords are off by 40 · (1 - cos π/8) = 3, 16 by 0.8.
    """
    rows, columns = np.ogrid[:100, :100]
    disc = np.where((rows - 49.5) ** 2 + (columns - 49.5) ** 2 < 40**2, 0, 3)
    (exact,) = predicted(TAG, segmentation(disc), polygon_tolerance=0.0)
    (made,) = predicted(TAG, segmentation(disc), polygon_tolerance=5.0)
    assert len(exact["value"]["points"]) > 100
    assert 8 < len(made["value"]["points"]) <= 16


def test_a_polygon_covers_the_pixels_whose_centres_lie_inside() -> None:
    truth = read(TAG, [polygon([[0, 0], [60, 0], [0, 60]])])
    target = truth.target(10, 10)
    assert (target == 2).sum(1).tolist() == [5, 4, 3, 2, 1, 0, 0, 0, 0, 0]
    assert truth.target(5, 20).shape == (5, 20)


def test_a_polygon_is_cut_off_at_the_images_border() -> None:
    """Its points are not moved: that would turn its sides."""
    truth = read(TAG, [polygon([[-50, 0], [50, 0], [50, 1e300], [-50, 100]])])
    assert (truth.target(10, 10) == 2).sum(1).tolist() == [5] * 10
    # The corner is 100 by 100 wide, and half of it would be left between (50, 50) and the borders.
    corner = read(TAG, [polygon([[50, 50], [150, 50], [50, 150]])]).target(10, 10)
    assert (corner == 2).sum(1).tolist() == [0] * 5 + [5] * 5
    around = read(TAG, [polygon([[50, -200], [-200, 400], [300, 400]])]).target(10, 10)
    assert (around == 2).all()


@pytest.mark.parametrize(
    "points",
    [
        [[110, 10], [150, 10], [150, 50]],
        [[10, -20], [20, -20], [20, -10]],
        [[1, 1], [2, 1], [2, 2]],  # between the centres of pixels
        [[10, 10], [50, 50], [90, 90]],
    ],
)
def test_a_polygon_that_covers_no_pixel_has_no_effect(points: Any) -> None:
    sky = polygon([[0, 0], [40, 0], [40, 100], [0, 100]], "sky")
    target, left_out = read(TAG, [sky, polygon(points)]).fit(10, 10)
    assert left_out == ("covering no pixel",)
    assert target is not None
    assert target[0].tolist() == [0] * 4 + [IGNORED] * 6
    assert read(TAG, [polygon(points)]).fit(10, 10) == (None, ("covering no pixel",))


@pytest.mark.parametrize(
    "points",
    [
        None,
        [],
        "points",
        {"0": [1, 1]},
        [[1, 1], [2, 2]],
        [[1, 1], [2, 2], [3]],
        [[1, 1], [2, 2], [3, 3, 3]],
        [[1, 1], [2, 2], "33"],
        [[1, 1], [2, 2], [3, "3"]],
        [[1, 1], [2, 2], [3, None]],
        [[1, 1], [2, 2], [3, True]],
        [[1, 1], [2, 2], [3, math.nan]],
        [[1, 1], [2, 2], [math.inf, 3]],
        [[1, 1]] * 20_001,
    ],
)
def test_what_cannot_be_read_is_omitted_and_counted(points: Any) -> None:
    whole = polygon([[0, 0], [100, 0], [100, 100], [0, 100]], "sky")
    found = reading(TAG, [polygon(points), whole])
    assert found.left_out == ("damaged",)
    assert found.truth is not None
    assert found.truth.target(3, 3).tolist() == [[0] * 3] * 3
