"""How far two annotations agree."""

from __future__ import annotations

from typing import Any

import pytest
from support.annotated import predicted, read, region, segmentation

from cdal.backend.annotations.agreement import agreement


def box(left: float, width: float, label: str = "car") -> dict[str, Any]:
    """A box of the upper half of the image, in percent."""
    value = {"x": left, "y": 0, "width": width, "height": 50, "rectanglelabels": [label]}
    return region("RectangleLabels", value)


def of_boxes(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> float:
    return agreement(read("RectangleLabels", one), read("RectangleLabels", other))


def test_choices_agree_or_do_not() -> None:
    sky, road = (
        read("Choices", [region("Choices", {"choices": [label]})]) for label in ("sky", "road")
    )
    assert (agreement(sky, sky), agreement(sky, road)) == (1, 0)


def test_boxes_agree_by_their_overlap() -> None:
    assert of_boxes([box(0, 40)], [box(0, 40)]) == pytest.approx(1)
    assert of_boxes([box(0, 40)], [box(0, 30)]) == pytest.approx(0.75)
    assert of_boxes([box(0, 40)], [box(0, 20)]) == 0  # half of it is not the same object
    assert of_boxes([box(0, 40)], [box(0, 40, "sky")]) == 0
    assert of_boxes([], []) == 1
    assert of_boxes([], [box(0, 40)]) == 0


def test_each_box_is_in_one_pair_and_missing_ones_count() -> None:
    # Two boxes of one annotation lie on the same box of the other.
    assert of_boxes([box(0, 40), box(0, 30)], [box(0, 40)]) == pytest.approx(1 / 2)
    two = [box(0, 40), box(50, 40)]
    assert of_boxes(two, [two[0]]) == pytest.approx(1 / 2)
    assert of_boxes(two, [two[1], two[0]]) == pytest.approx(1)


@pytest.mark.parametrize("tag", ["BrushLabels", "PolygonLabels"])
def test_masks_agree_by_their_labelled_pixels(tag: str) -> None:
    left = predicted(tag, segmentation([[0, 0, 3, 3]] * 4))
    wide = predicted(tag, segmentation([[0, 0, 0, 3]] * 4))
    other = predicted(tag, segmentation([[1, 1, 3, 3]] * 4))
    nothing = read(tag, [])
    assert agreement(read(tag, left), read(tag, left)) == 1
    assert agreement(read(tag, left), read(tag, wide)) == pytest.approx(2 / 3, abs=0.01)
    assert agreement(read(tag, left), read(tag, other)) == 0
    assert agreement(read(tag, left), nothing) == 0
    assert agreement(nothing, nothing) == 1


def test_uncovered_pixels_that_are_ignored_are_not_labelled() -> None:
    left, wide = (
        read("BrushLabels", predicted("BrushLabels", segmentation([row] * 4)), unlabelled="ignore")
        for row in ([0, 0, 3, 3], [0, 0, 0, 3])
    )
    assert agreement(left, wide) == pytest.approx(2 / 3)


def test_different_kinds_are_not_comparable() -> None:
    choice = read("Choices", [region("Choices", {"choices": ["sky"]})])
    with pytest.raises(TypeError, match="ChoiceTruth"):
        agreement(choice, read("RectangleLabels", []))
