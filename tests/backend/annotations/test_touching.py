"""Touching objects of a class are told apart where they are narrow."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from support.annotated import predicted, read, returned, segmentation

from cdal.backend.annotations.touching import objects_in

Map = npt.NDArray[np.uint8]


def discs(*at: tuple[int, int, int], size: tuple[int, int] = (128, 160)) -> Map:
    """A mask of discs, each given by column, row and radius."""
    mask = np.zeros(size, np.uint8)
    for column, row, radius in at:
        cv2.circle(mask, (column, row), radius, 1, -1)
    return mask


def areas(mask: Map, smallest: float = 0) -> list[int]:
    return sorted(int(found.sum()) for found in objects_in(mask, smallest))


def test_two_discs_that_touch_are_two_objects() -> None:
    left, right = objects_in(discs((40, 60, 25), (86, 62, 25)), 0)
    assert (left + right == discs((40, 60, 25), (86, 62, 25))).all()
    first, second = ((found * np.arange(160)).sum() / found.sum() for found in (left, right))
    assert first == pytest.approx(40, abs=1)
    assert second == pytest.approx(86, abs=1)


def test_a_row_of_discs_of_different_sizes() -> None:
    mask = discs((25, 60, 20), (62, 60, 24), (97, 62, 16))
    assert areas(mask) == pytest.approx([750, 1240, 1770], rel=0.1)


@pytest.mark.parametrize(
    "mask",
    [
        discs((60, 60, 30)),
        discs((50, 60, 30), (80, 60, 30)),  # they overlap too broadly
        cv2.ellipse(discs(), (80, 64), (60, 22), 20, 0, 360, 1, -1),
        np.ones((40, 90), np.uint8),
        np.pad(np.ones((60, 12), np.uint8), ((0, 12), (0, 60)))
        | np.pad(np.ones((12, 72), np.uint8), ((60, 0), (0, 0))),
        np.ones((1, 1), np.uint8),
        np.ones((1, 7), np.uint8),
    ],
)
def test_what_has_no_neck_is_one_object(mask: Map) -> None:
    (found,) = objects_in(mask, 20)
    assert (found == mask).all()


def test_no_object_becomes_smaller_than_the_smallest() -> None:
    mask = discs((60, 60, 30), (97, 60, 8))
    assert len(areas(mask, smallest=150)) == 2
    assert len(areas(mask, smallest=250)) == 1


def test_objects_cover_any_mask_and_are_connected() -> None:
    draws = np.random.default_rng(0)
    for _ in range(20):
        noise = cv2.GaussianBlur(draws.random((40, 50)), (0, 0), float(draws.uniform(0.6, 4)))
        whole = (noise > np.median(noise)).view(np.uint8)
        numbers = cv2.connectedComponents(whole, connectivity=4)[1]
        mask = (numbers == 1).view(np.uint8)
        found = objects_in(mask, 5)
        assert (np.sum(found, 0) == mask).all()
        for one in found:
            assert cv2.connectedComponents(one, connectivity=4)[0] == 2
            assert one.sum() >= min(5, mask.sum())


LABELS: Any = np.where(discs((40, 60, 25), (86, 62, 25)), 2, 3)
"""Two touching cars on background."""


@pytest.mark.parametrize("tag", ["BrushLabels", "BitmaskLabels", "PolygonLabels"])
@pytest.mark.parametrize("size", [(128, 160), (300, 410), (60, 75)])
def test_each_object_is_a_region_with_its_own_score(tag: str, size: tuple[int, int]) -> None:
    confidences = [[0.9] * 63 + [0.6] * 97]
    made = predicted(tag, segmentation(LABELS, confidences), size, split_regions="touching")
    assert [item["value"][tag.lower()] for item in made] == [["car"]] * 2
    assert max(item["score"] for item in made) == pytest.approx(0.9, abs=0.01)
    assert min(item["score"] for item in made) == pytest.approx(0.6, abs=0.01)
    one, other = (read(tag, [item]).target(*size).numpy() == 2 for item in made)
    assert (one & other).sum() <= (0 if tag != "PolygonLabels" else 0.005 * one.sum())
    together = read(tag, made).target(*size).numpy() == 2
    whole = predicted(tag, segmentation(LABELS, confidences), size, split_regions=True)
    wanted = read(tag, whole).target(*size).numpy() == 2
    assert len(whole) == 1
    assert (together & wanted).sum() / (together | wanted).sum() > 0.98
    if tag != "PolygonLabels":
        assert (together == wanted).all()


@pytest.mark.parametrize("tag", ["BrushLabels", "BitmaskLabels"])
def test_the_label_map_comes_back_as_it_went(tag: str) -> None:
    assert (returned(tag, segmentation(LABELS), split_regions="touching") == LABELS).all()
