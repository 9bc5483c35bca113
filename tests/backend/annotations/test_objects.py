"""Regions of annotations as objects to learn, and objects that a network finds as regions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.annotated import LABELS, control_of, predicted, read, region

from cdal.backend.annotations import masks
from cdal.backend.annotations.consensus import consensus
from cdal.backend.annotations.masks import MajorityTruth, MaskTruth
from cdal.backend.annotations.packing import pack, unpack
from cdal.models.predictions import IGNORED, Segmentation

TAGS = ("BrushLabels", "BitmaskLabels", "PolygonLabels")
BACKGROUND = len(LABELS)
SIZE = (8, 10)


def found(
    classes: npt.ArrayLike, objects: npt.ArrayLike, confidences: npt.ArrayLike = ((0.5,),)
) -> Segmentation:
    return Segmentation(
        torch.tensor(np.array(classes, np.uint8)),
        torch.tensor(np.array(confidences, np.float32)),
        torch.tensor(np.array(objects, np.uint8)),
    )


def square(left: int, right: int, label: str) -> dict[str, Any]:
    """A polygon from the top to the bottom, in columns of an image that is ten wide."""
    points = [[10 * left, 0], [10 * right, 0], [10 * right, 100], [10 * left, 100]]
    return region("PolygonLabels", {"points": points, "polygonlabels": [label]})


def painted(*regions: dict[str, Any]) -> MaskTruth:
    truth = read("PolygonLabels", regions)
    assert isinstance(truth, MaskTruth)
    return truth


def rows(*truths: MaskTruth) -> tuple[list[int], list[int]]:
    """The classes and the objects of a row of the target that these annotators give."""
    truth = consensus(control_of("PolygonLabels"), truths)
    assert isinstance(truth, MaskTruth | MajorityTruth)
    numbered = truth.with_objects(True)
    assert numbered.numbered
    assert numbered.digest() == truth.digest()
    target, wrong = numbered.fit(*SIZE)
    assert wrong == ()
    assert target is not None
    assert target.dtype == torch.int16
    assert torch.equal(target, numbered.target(*SIZE))
    plain, _ = numbered.with_objects(False).fit(*SIZE)
    assert plain is not None
    assert plain.dtype == torch.uint8
    classes, objects = target[:, 3].tolist()
    return classes, objects


def test_each_region_is_an_object() -> None:
    classes, objects = rows(painted(square(0, 3, "car"), square(3, 6, "car"), square(8, 9, "sky")))
    assert classes == [2] * 6 + [BACKGROUND] * 2 + [0, BACKGROUND]
    assert objects == [1, 1, 1, 2, 2, 2, 0, 0, 3, 0]


def test_a_later_region_covers_part_of_an_object() -> None:
    _, objects = rows(painted(square(0, 6, "car"), square(2, 4, "car")))
    assert objects == [1, 1, 2, 2, 1, 1, 0, 0, 0, 0]


def test_what_an_unreadable_region_covers_is_no_object() -> None:
    classes, objects = rows(painted(square(0, 3, "car"), square(2, 6, "unknown")))
    assert classes == [2, 2, *[IGNORED] * 4, *[BACKGROUND] * 4]
    assert objects == [1, 1, *[0] * 8]


def test_an_image_of_which_nothing_is_known_teaches_nothing() -> None:
    truth = painted(square(0, 3, "car"), square(0, 10, "unknown")).with_objects(True)
    assert truth.fit(*SIZE) == (None, ())


def test_the_objects_of_an_annotation_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "MOST_OBJECTS", 2)
    truth = painted(*(square(n, n + 1, "car") for n in range(3))).with_objects(True)
    target, wrong = truth.fit(*SIZE)
    assert wrong == (masks.TOO_MANY,)
    assert target is not None
    assert target[:, 0].tolist() == [[2, 2, *[IGNORED] * 8], [1, 2, *[0] * 8]]
    plain, nothing = truth.with_objects(False).fit(*SIZE)
    assert nothing == ()
    assert plain is not None
    assert plain[0].tolist() == [2, 2, 2, *[BACKGROUND] * 7]


def test_objects_of_several_annotators_are_those_of_the_latest() -> None:
    """What most others call a car, and the latest does not, belongs to no known object."""
    first = painted(square(0, 6, "car"))
    latest = painted(square(1, 4, "car"), square(4, 5, "car"), square(7, 8, "sky"))
    classes, objects = rows(first, first, latest)
    assert classes == [IGNORED, 2, 2, 2, 2, IGNORED, *[BACKGROUND] * 4]
    assert objects == [0, 1, 1, 1, 2, *[0] * 5]


TOUCHING = found(
    np.tile([2, 2, 2, 2, 2, 2, BACKGROUND, 0, 0, BACKGROUND], (8, 1)),
    np.tile([1, 1, 1, 2, 2, 2, 0, 3, 3, 0], (8, 1)),
    np.tile([0.9, 0.9, 0.9, 0.7, 0.7, 0.7, 1, 0.6, 0.6, 1], (8, 1)),
)


def said(result: Sequence[dict[str, Any]], tag: str) -> list[tuple[str, float]]:
    return sorted((one["value"][tag.lower()][0], one["score"]) for one in result)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("split", [False, True, "touching"])
def test_each_object_is_a_region_with_its_own_score(tag: str, split: bool | str) -> None:
    result = predicted(tag, TOUCHING, split_regions=split)
    assert said(result, tag) == [("car", 0.7), ("car", 0.9), ("sky", 0.6)]


@pytest.mark.parametrize("tag", TAGS)
def test_objects_come_back_as_they_went(tag: str) -> None:
    truth = read(tag, predicted(tag, TOUCHING))
    assert isinstance(truth, MaskTruth)
    classes, objects = truth.with_objects(True).target(*SIZE).numpy()
    assert TOUCHING.objects is not None
    assert (classes == TOUCHING.labels.numpy()).all()
    # The same pixels, under other numbers.
    pairs = set(zip(objects.ravel().tolist(), TOUCHING.objects.ravel().tolist(), strict=True))
    assert len(pairs) == 4


@pytest.mark.parametrize(("tag", "regions"), [("BrushLabels", 1), ("PolygonLabels", 2)])
def test_an_object_in_two_pieces_is_one_region_unless_it_has_an_outline(
    tag: str, regions: int
) -> None:
    behind = found(np.tile([2, 2, 2, 0, 2, 2], (6, 1)), np.tile([1, 1, 1, 2, 1, 1], (6, 1)))
    for split in (False, True):
        result = predicted(tag, behind, split_regions=split)
        assert [label for label, _ in said(result, tag)] == ["car"] * regions + ["sky"]


@pytest.mark.parametrize("tag", ["BrushLabels", "BitmaskLabels"])
def test_objects_stay_apart_in_a_larger_image(tag: str) -> None:
    truth = read(tag, predicted(tag, TOUCHING, size=(80, 100)))
    assert isinstance(truth, MaskTruth)
    classes, objects = truth.with_objects(True).target(80, 100).numpy()
    assert len(set(objects[40, :60].tolist())) == 2
    assert set(classes[40, :58].tolist()) == {2}
    assert (np.diff(objects[40, :58]) != 0).sum() == 1


def test_those_below_the_threshold_or_too_small_are_left_out() -> None:
    threshold = predicted("BrushLabels", TOUCHING, attributes='model_score_threshold="0.65"')
    assert said(threshold, "BrushLabels") == [("car", 0.7), ("car", 0.9)]
    large = predicted("BrushLabels", TOUCHING, smallest_region=0.25)
    assert said(large, "BrushLabels") == [("car", 0.7), ("car", 0.9)]


def test_objects_are_kept_with_a_finding() -> None:
    again, size = unpack(json.loads(json.dumps(pack(TOUCHING, (80, 100)))))
    assert size == (80, 100)
    assert isinstance(again, Segmentation)
    assert again.objects is not None
    assert TOUCHING.objects is not None
    assert torch.equal(again.objects, TOUCHING.objects)
    without, _ = unpack(pack(Segmentation(TOUCHING.labels, TOUCHING.confidences), (80, 100)))
    assert isinstance(without, Segmentation)
    assert without.objects is None
