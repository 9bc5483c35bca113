"""Label maps and their parts, whatever control they come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter.brush import mask2rle
from support.annotated import LABELS, control_of, png_of, region, returned, segmentation

from cdal.backend.annotations import FORMATS, masks, read_annotations
from cdal.backend.annotations.masks import MaskTruth, enlarge, resize
from cdal.backend.annotations.parts import parts_of
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import BACKGROUND, IGNORED

TAGS = ("BrushLabels", "BitmaskLabels", "PolygonLabels")
ALL = {"smallest_region": 0.0, "polygon_tolerance": 0.0}


def square(left: float, top: float, right: float, bottom: float, label: str) -> Any:
    """A polygon on an image of ten by ten pixels, in pixels."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    points = [[x * 10, y * 10] for x, y in corners]
    return region("PolygonLabels", {"points": points, "polygonlabels": [label]}, (10, 10))


def target(*regions: Any, size: tuple[int, int] = (10, 10), **settings: Any) -> Any:
    control = control_of("PolygonLabels")
    truth = read_annotations(
        control, [{"result": list(regions)}], ProjectSettings(**settings)
    ).truth
    return None if truth is None else np.asarray(truth.target(*size))


def test_the_later_region_wins() -> None:
    below, above = square(0, 0, 6, 10, "sky"), square(4, 0, 10, 10, "car")
    assert target(below, above)[0].tolist() == [0] * 4 + [2] * 6
    assert target(above, below)[0].tolist() == [0] * 6 + [2] * 4


def test_a_label_may_have_several_regions() -> None:
    found = target(square(0, 0, 2, 10, "sky"), square(8, 0, 10, 10, "sky"))
    assert found[0].tolist() == [0, 0, *[3] * 6, 0, 0]


def test_what_no_region_covers_is_background_or_ignored() -> None:
    half = square(0, 0, 5, 10, "road")
    assert target(half)[0].tolist() == [1] * 5 + [len(LABELS)] * 5
    assert target(half, unlabelled="ignore")[0].tolist() == [1] * 5 + [IGNORED] * 5


def test_without_regions_all_is_background_or_unknown() -> None:
    assert target().tolist() == [[len(LABELS)] * 10] * 10
    assert target(unlabelled="ignore") is None


def test_a_damaged_region_leaves_the_rest_unknown() -> None:
    damaged = square(0, 0, 5, 5, "car")
    damaged["value"]["points"] = [[1, 1]]
    half = square(0, 0, 5, 10, "road")
    assert target(half, damaged)[0].tolist() == [1] * 5 + [IGNORED] * 5
    assert target(damaged) is None
    found = FORMATS["PolygonLabels"].read(
        control_of("PolygonLabels"), [half, damaged], ProjectSettings()
    )
    assert found.left_out == ("damaged",)
    assert found.truth is not None
    assert found.truth.classes == {"road"}


@pytest.mark.parametrize("tag", TAGS)
def test_the_work_of_painting_an_annotation_is_limited(
    tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred bytes may encode a region of 80 million pixels, and there may be thousands."""
    rle = mask2rle(np.full((100, 100), 255, np.uint8))
    values: dict[str, Any] = {
        "BrushLabels": {"rle": rle},
        "BitmaskLabels": {"imageDataURL": png_of(np.full((100, 100), 255))},
        "PolygonLabels": {"points": [[0, 0], [100, 0], [100, 100], [0, 100]]},
    }
    whole = [region(tag, {**values[tag], tag.lower(): [label]}, (100, 100)) for label in LABELS[:2]]
    truth = FORMATS[tag].read(control_of(tag), whole, ProjectSettings()).truth
    assert isinstance(truth, MaskTruth)
    cost = truth.shapes[0].cost(100, 100)
    assert cost >= 100 * 100
    for limit, label in ((2 * cost, 1), (2 * cost - 1, 0)):
        monkeypatch.setattr(masks, "MOST_WORK", limit)
        painted, wrong = truth.fit(100, 100)
        assert wrong == (masks.TOO_MUCH,) * (1 - label)
        assert painted is not None
        assert painted.unique().tolist() == [label]


def test_a_polygon_of_many_long_edges_costs_more_than_its_area() -> None:
    """Each edge crosses each row."""
    zigzag = [[number % 100, number % 2 * 100] for number in range(1000)]
    value = {"points": zigzag, "polygonlabels": ["sky"]}
    found = FORMATS["PolygonLabels"].read(
        control_of("PolygonLabels"), [region("PolygonLabels", value)], ProjectSettings()
    )
    assert isinstance(found.truth, MaskTruth)
    assert found.truth.shapes[0].cost(100, 100) > 1000 * 100


def test_the_digest_changes_with_the_annotation() -> None:
    sky, car = square(0, 0, 6, 10, "sky"), square(4, 0, 10, 10, "car")
    moved = square(4, 0, 10, 9, "car")
    control = control_of("PolygonLabels")
    digests = set()
    for result in ([], [sky], [car], [sky, car], [car, sky], [sky, moved], [sky, sky]):
        truth = read_annotations(control, [{"result": result}], ProjectSettings()).truth
        again = read_annotations(
            control, [{"result": [dict(item) for item in result]}], ProjectSettings()
        ).truth
        assert truth is not None
        assert again is not None
        assert truth.digest() == again.digest()
        digests.add(truth.digest())
    ignoring = read_annotations(
        control, [{"result": [sky]}], ProjectSettings(unlabelled="ignore")
    ).truth
    assert ignoring is not None
    assert len(digests | {ignoring.digest()}) == 8


def parts(labels: Any, confidences: Any = ((0.5,),), **settings: Any) -> list[tuple[Any, ...]]:
    finding = segmentation(labels, confidences)
    found = parts_of(
        finding,
        control_of("BrushLabels"),
        (*LABELS, BACKGROUND),
        ProjectSettings(**{"smallest_region": 0.0, **settings}),
    )
    return [(p.value, p.area, p.left, p.top, round(p.confidence, 4)) for p in found]


MAP = [
    [0, 0, 3, 1],
    [0, 3, 1, 1],
    [3, 0, 3, 3],
]


def test_parts_are_connected_by_edges_and_background_has_none() -> None:
    assert parts(MAP) == [(0, 3, 0, 0, 0.5), (0, 1, 1, 2, 0.5), (1, 3, 2, 0, 0.5)]


def test_small_parts_are_omitted() -> None:
    assert parts(MAP, smallest_region=0.25) == [(0, 3, 0, 0, 0.5), (1, 3, 2, 0, 0.5)]
    assert parts(MAP, smallest_region=0.26) == []


def test_confidence_is_the_mean_over_a_parts_pixels() -> None:
    """Confidences come at a lower resolution: here one for the left half, one for the right."""
    left_and_right = [[0.2, 0.8]]
    assert parts([[0, 0, 0, 1], [0, 3, 3, 1]], left_and_right) == [
        (0, 4, 0, 0, 0.35),
        (1, 2, 3, 0, 0.8),
    ]


def test_resizing_takes_the_pixel_under_the_centre() -> None:
    row = np.array([[1, 2, 3]], np.uint8)
    assert resize(row, (2, 6)).tolist() == [[1, 1, 2, 2, 3, 3]] * 2
    assert resize(row, (1, 1)).tolist() == [[2]]
    assert resize(row, (1, 2)).tolist() == [[1, 3]]
    assert resize(row, (1, 3)) is row


def test_enlarging_gives_a_pixel_to_the_class_that_dominates_around_it() -> None:
    """The corner of a corner is rounded: there class 1 has 5/8 of 5/8."""
    corner = np.array([[1, 0], [0, 0]], np.uint8)
    assert enlarge(corner, (4, 4)).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0] * 4, [0] * 4]
    assert enlarge(corner, (8, 8)).tolist() == [
        *[[1, 1, 1, 1, 0, 0, 0, 0]] * 3,
        [1, 1, 1, 0, 0, 0, 0, 0],
        *[[0] * 8] * 4,
    ]
    assert enlarge(corner, (2, 2)) is corner


@pytest.mark.parametrize("tag", TAGS)
def test_classes_without_a_label_give_no_region(tag: str) -> None:
    control = control_of(tag)
    finding = segmentation([[0, 1, 2, 3, IGNORED]])
    classes = ("sky", "river", "car", BACKGROUND)
    settings = ProjectSettings(**ALL)
    made = FORMATS[tag].to_result(control, classes, finding, (1, 5), settings)
    assert [item["value"][tag.lower()] for item in made] == [["sky"], ["car"]]


@pytest.mark.parametrize("tag", TAGS)
def test_nothing_is_lost_on_the_way_there_and_back(tag: str) -> None:
    random = np.random.default_rng(0)
    for side in (1, 2, 3, 7, 20):
        labels = random.integers(0, 4, (side, side + 1))
        assert (returned(tag, segmentation(labels), **ALL) == labels).all()


@pytest.mark.parametrize("tag", TAGS)
def test_specks_come_back_as_background(tag: str) -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[5, 5] = 1
    labels[10:15, 10:15] = 2
    expected = labels.copy()
    expected[5, 5] = 3
    settings = {"smallest_region": 0.01, "polygon_tolerance": 0.0}
    assert (returned(tag, segmentation(labels), **settings) == expected).all()
