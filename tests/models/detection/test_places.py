from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cdal.models.detection.boxes import within
from cdal.models.detection.head import (
    mirrored_boxes,
    mirrored_content,
    overlaps,
    quality_focal_loss,
    suppressed,
)
from cdal.models.detection.places import Places, assigned
from cdal.models.features import ImageFeatures

CPU = torch.device("cpu")


def places() -> Places:
    """Of an image of 64 rows and 96 columns: 8 by 12, 4 by 6 and 2 by 3."""
    return Places.of((8, 12), CPU)


def target(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows).view(-1, 5)


def test_places_lie_in_the_middle_of_their_pixels() -> None:
    found = places()
    assert len(found.centres) == len(found.strides) == 96 + 24 + 6
    assert found.centres[0].tolist() == [4, 4]
    assert found.centres[13].tolist() == [12, 12]  # second row, second column
    assert found.centres[96].tolist() == [8, 8]
    assert found.strides[[0, 96, 120]].tolist() == [8, 16, 32]


def test_a_box_is_found_near_its_centre() -> None:
    found = assigned(places(), target((20, 20, 44, 44, 1)), 2)
    classes, boxes = found.classes, found.boxes
    near = classes[:, 1].nonzero().flatten().tolist()
    # Within 12 pixels of (32, 32): the centres 20, 28, 36 and 44 in both directions.
    assert near == [12 * row + column for row in (2, 3, 4, 5) for column in (2, 3, 4, 5)]
    assert not classes[:, 0].any()
    assert boxes[near].tolist() == [[20, 20, 44, 44]] * 16


def test_a_box_is_given_by_its_distances_in_strides() -> None:
    distances = torch.zeros(2, 126, 4)
    distances[1] = torch.tensor([1.0, 2, 3, 4]).log()
    boxes = places().boxes(distances)
    assert boxes[0, 12 * 3 + 3].tolist() == [20, 20, 36, 36]  # 8 pixels around (28, 28)
    assert boxes[1, 12 * 3 + 3].tolist() == pytest.approx([20, 12, 52, 60])
    assert boxes[0, 125].tolist() == [48, 16, 112, 80]  # 32 pixels around (80, 48)
    assert bool(places().boxes(torch.full((126, 4), 1e9)).isfinite().all())


def test_the_central_part_of_a_large_box_finds_it() -> None:
    large = Places.of((16, 16), CPU)
    classes = assigned(large, target((0, 0, 120, 120, 0)), 1).classes
    near = large.centres[classes[:, 0] > 0]
    # From 30 to 90, half of each side: the centres 36, 44, …, 84 in both directions.
    assert len(near) == 7 * 7
    assert (float(near.min()), float(near.max())) == (36, 84)


def test_a_large_box_weighs_as_much_as_nine_places() -> None:
    large = Places.of((16, 16), CPU)
    found = assigned(large, target((0, 0, 120, 120, 0), (8, 104, 16, 112, 1)), 2)
    weights = [found.weights[found.classes[:, c] > 0] for c in (0, 1)]
    assert weights[0].tolist() == pytest.approx([9 / 49] * 49)
    assert weights[1].tolist() == [1]
    assert bool((found.weights[found.classes.amax(1) == 0] == 1).all())


def test_a_tiny_box_has_a_place() -> None:
    classes = assigned(places(), target((5, 5, 6, 6, 0)), 1).classes
    assert classes[:, 0].nonzero().flatten().tolist() == [0]


def test_a_large_box_is_found_on_a_coarse_level() -> None:
    large = Places.of((64, 64), CPU)
    classes = assigned(large, target((0, 0, 512, 512, 0), (100, 100, 250, 250, 1)), 2).classes
    strides = [set(large.strides[classes[:, c] > 0].tolist()) for c in (0, 1)]
    assert strides == [{32.0}, {16.0}]


def test_a_place_of_two_boxes_finds_the_smaller() -> None:
    classes = assigned(places(), target((0, 0, 60, 60, 0), (24, 24, 36, 36, 1)), 2).classes
    assert classes[12 * 3 + 3].tolist() == [0, 1]


def test_no_box() -> None:
    found = assigned(places(), target(), 3)
    assert found.classes.shape == (126, 3)
    assert not found.classes.any()
    assert found.weights.tolist() == [1] * 126


def test_places_in_the_padding_are_outside() -> None:
    found = places()  # 64 by 96
    shown = found.centres[found.inside((20, 40))].tolist()
    assert [4, 4] in shown
    assert [36, 12] in shown
    assert max(x for x, _ in shown) < 40
    assert max(y for _, y in shown) < 20
    right = found.centres[found.inside((64, 40), left=56)]
    assert right[:, 0].min() == 56
    assert bool(found.inside((64, 96)).all())


def test_boxes_end_at_the_image() -> None:
    boxes = torch.tensor([[-3.0, -5, 20, 30], [60, 40, 99, 99], [200, 200, 210, 210]])
    assert within(boxes, (50, 70)).tolist() == [[0, 0, 20, 30], [60, 40, 70, 50], [70, 50, 70, 50]]


def test_boxes_that_overlap_are_suppressed_within_a_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10], [0.0, 0, 10, 9]])
    probabilities = torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.0, 0.7]])
    kept, labels, scores, _ = suppressed(probabilities, boxes)
    assert kept.tolist() == [[0, 0, 10, 10], [0, 0, 10, 9]]
    assert labels.tolist() == [0, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.7])


def test_mirrored_boxes() -> None:
    image = ImageFeatures((), (50, 70))  # 64 by 96 for the backbone
    found = mirrored_boxes(target((10, 5, 30, 20, 2)), image, flip=True)
    assert found.tolist() == [[66, 5, 86, 20, 2]]
    assert mirrored_boxes(found, image, flip=True).tolist() == [[10, 5, 30, 20, 2]]
    assert math.isclose(float(mirrored_boxes(found, image, flip=False)[0, 0]), 66)


def test_padding_is_on_the_left_of_a_mirrored_image() -> None:
    image = ImageFeatures((), (50, 70))  # 64 by 96 for the backbone
    assert mirrored_content(image, flip=False) == ((50, 70), 0)
    assert mirrored_content(image, flip=True) == ((50, 70), 26)


def test_overlaps_of_pairs() -> None:
    found = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    true = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    assert overlaps(found, true).tolist() == pytest.approx([1, 1 / 3, 0])


def test_quality_focal_loss() -> None:
    """At a probability of 0.5 the entropy is ln 2 whatever the quality."""
    losses = quality_focal_loss(torch.zeros(3), torch.tensor([0.0, 0.5, 0.8]))
    assert losses.tolist() == pytest.approx([0.25 * math.log(2), 0, 0.09 * math.log(2)])
