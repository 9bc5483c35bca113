"""What several annotators together say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.annotated import control_of, predicted, read, region, segmentation

from cdal.backend.annotations import Truth
from cdal.backend.annotations.agreement import agreement
from cdal.backend.annotations.choices import VotedTruth
from cdal.backend.annotations.consensus import consensus
from cdal.backend.annotations.rectangles import BoxesTruth
from cdal.models.predictions import IGNORED


def choice(label: str) -> Truth:
    return read("Choices", [region("Choices", {"choices": [label]})])


def voted(*labels: str) -> Truth:
    return consensus(control_of("Choices"), [choice(label) for label in labels])


def box(left: float, width: float, label: str = "car") -> dict[str, Any]:
    value = {"x": left, "y": 0, "width": width, "height": 50, "rectanglelabels": [label]}
    return region("RectangleLabels", value)


def merged(*annotations: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Label, left and right of the objects, in percent."""
    truths = [read("RectangleLabels", regions) for regions in annotations]
    found = consensus(control_of("RectangleLabels"), truths)
    assert isinstance(found, BoxesTruth)
    return [
        (found.labels[index], round(100 * float(left)), round(100 * float(right)))
        for index, (left, _, right, _) in zip(found.indices, found.boxes, strict=True)
    ]


def painted(*rows: list[int]) -> list[list[int]]:
    """The majority of masks of one row, of which 3 is background."""
    masks = [read("BrushLabels", predicted("BrushLabels", segmentation([row]))) for row in rows]
    found = consensus(control_of("BrushLabels"), masks)
    target, left_out = found.fit(1, len(rows[0]))
    assert left_out == ()
    assert target is not None
    assert torch.equal(target, found.target(1, len(rows[0])))
    told: list[list[int]] = target.tolist()
    return told


def test_choices_become_shares_of_votes() -> None:
    found = voted("road", "road", "car", "road")
    assert found.target(5, 5).tolist() == [0, 0.75, 0.25]  # of sky, road and car
    assert found.classes == {"road", "car"}
    assert found.digest() != voted("road", "car").digest()
    assert voted("road", "road") == choice("road")


def test_a_choice_agrees_with_those_of_most_votes() -> None:
    majority, tie = voted("road", "car", "road"), voted("road", "car")
    assert isinstance(tie, VotedTruth)
    assert [agreement(choice(label), majority) for label in ("road", "car")] == [1, 0]
    assert [agreement(choice(label), tie) for label in ("road", "car", "sky")] == [0.5, 0.5, 0]


def test_boxes_of_the_same_object_become_their_mean() -> None:
    assert merged([box(10, 40)], [box(14, 40)]) == [("car", 12, 52)]
    assert merged([box(10, 40)], [box(10, 40)], [box(16, 40)]) == [("car", 12, 52)]


def test_an_object_counts_if_half_of_the_annotators_have_it() -> None:
    assert merged([box(0, 20)], []) == [("car", 0, 20)]
    assert merged([box(0, 20)], [], []) == []
    assert merged([box(0, 20)], [box(50, 20), box(0, 20)], []) == [("car", 0, 20)]
    assert merged([], []) == []


def test_an_object_has_the_label_that_most_give_it() -> None:
    cars = [box(0, 20)], [box(0, 20)]
    assert merged(*cars, [box(0, 20, "sky")]) == [("car", 0, 20)]
    # Of two, the latest decides.
    assert merged([box(0, 20)], [box(0, 20, "sky")]) == [("sky", 0, 20)]
    # Boxes of the same label are the same object first.
    both = [box(0, 20), box(4, 20, "sky")]
    assert merged(both, [box(2, 20, "sky"), box(2, 20)]) == [("car", 1, 21), ("sky", 3, 23)]


def test_pixels_have_the_class_of_the_majority() -> None:
    assert painted([0, 0, 3, 1], [0, 1, 3, 1], [1, 1, 0, 1]) == [[0, 1, 3, 1]]
    assert painted([0, 0, 3], [0, 1, 0]) == [[0, IGNORED, IGNORED]]
    assert painted([0, 1], [1, 0], [2, 1], [1, 0]) == [[1, IGNORED]]


def test_masks_agree_with_their_majority() -> None:
    control = control_of("BrushLabels")
    left, right = (
        read("BrushLabels", predicted("BrushLabels", segmentation([row])))
        for row in ([0, 0, 3, 3], [0, 0, 0, 0])
    )
    found = consensus(control, [left, left, right])
    assert agreement(left, found) == 1
    assert agreement(right, found) == pytest.approx(0.5)
    assert found.classes == {"sky"}
    assert found.digest() != consensus(control, [left, right, right]).digest()
