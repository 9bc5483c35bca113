"""BrushLabels: predictions out, masks in."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import decode_rle, encode_rle, mask2rle
from support.annotated import LABELS, predicted, read, reading, region, returned, segmentation

from cdal.backend.annotations import brush
from cdal.models.predictions import IGNORED

TAG = "BrushLabels"


def painted(mask: npt.ArrayLike, label: str = "car", **more: Any) -> Any:
    """A region of a mask with values from 0 to 255."""
    pixels = np.array(mask, np.uint8)
    value = {"format": "rle", "rle": mask2rle(pixels), "brushlabels": [label]}
    return region(TAG, {**value, **more}, (pixels.shape[0], pixels.shape[1]))


def test_label_studio_accepts_the_prediction() -> None:
    labels = [[3, 1, 3], [3, 1, 0]]
    big, small = predicted(TAG, segmentation(labels, [[0.123456]]), smallest_region=0.0)
    assert {**big, "value": {**big["value"], "rle": None}} == {
        "id": "brush0",
        "from_name": "what",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": 3,
        "original_height": 2,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": None, "brushlabels": ["road"]},
        "score": 0.1235,
    }
    assert decode_rle(big["value"]["rle"]).reshape(2, 3, 4).tolist() == [
        [[0] * 4, [255] * 4, [0] * 4],
        [[0] * 4, [255] * 4, [0] * 4],
    ]
    assert (small["id"], small["value"]["brushlabels"]) == ("brush1", ["sky"])


def test_the_encoding_is_the_sdks() -> None:
    mask = np.random.default_rng(0).integers(0, 2, (9, 13)).astype(np.uint8)
    (made,) = predicted(TAG, segmentation(np.where(mask, 0, 3)), smallest_region=0.0)
    assert made["value"]["rle"] == mask2rle(mask * 255)


def test_one_region_per_class_or_per_part() -> None:
    finding = segmentation([[0, 3, 0, 0], [0, 3, 3, 3], [3, 1, 3, 2]], [[0.9, 0.5]])
    whole = predicted(TAG, finding, smallest_region=0.0)
    split = predicted(TAG, finding, smallest_region=0.0, split_regions=True)
    names = [[item["value"]["brushlabels"][0] for item in result] for result in (whole, split)]
    assert names == [["sky", "road", "car"], ["sky", "sky", "road", "car"]]
    assert [item["score"] for item in whole] == [0.7, 0.9, 0.5]
    assert [item["score"] for item in split] == [0.9, 0.5, 0.9, 0.5]


def test_regions_below_the_threshold_are_not_shown() -> None:
    finding = segmentation([[0, 0, 1, 1]], [[0.4, 0.8]])
    attribute = 'model_score_threshold="0.5"'
    assert len(predicted(TAG, finding)) == 2
    assert [r["score"] for r in predicted(TAG, finding, attributes=attribute)] == [0.8]


def test_a_map_smaller_than_the_image_is_enlarged_to_it() -> None:
    (made,) = predicted(TAG, segmentation([[0, 3]]), size=(2, 4))
    assert (made["original_height"], made["original_width"]) == (2, 4)
    truth = read(TAG, [made])
    assert truth.target(2, 4).tolist() == [[0, 0, 3, 3]] * 2


def test_soft_edges_count_from_one_half() -> None:
    truth = read(TAG, [painted([[0, 127, 128, 255]])])
    assert truth.target(1, 4).tolist() == [[3, 3, 2, 2]]


@pytest.mark.parametrize("most", [1, 100, 128, 254])
def test_half_is_half_of_the_masks_own_maximum(most: int) -> None:
    """The SDK's `contour2rle` writes an alpha of 100 for what is covered."""
    truth = read(TAG, [painted([[0, most // 2 - 1 if most > 1 else 0, (most + 1) // 2, most]])])
    assert truth.target(1, 4).tolist() == [[3, 3, 2, 2]]


def test_an_empty_mask_has_no_effect() -> None:
    empty, sky = painted([[0, 0, 0]]), painted([[255, 0, 0]], "sky")
    target, left_out = read(TAG, [sky, empty]).fit(1, 3)
    assert left_out == ("covering no pixel",)
    assert target is not None
    assert target.tolist() == [[0, IGNORED, IGNORED]]
    assert read(TAG, [empty]).fit(1, 3) == (None, ("covering no pixel",))


def test_a_mask_that_covers_nothing_once_it_is_resized_makes_no_background() -> None:
    one_pixel = painted([[255, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert read(TAG, [one_pixel]).fit(1, 1) == (None, ("covering no pixel",))


def test_a_mask_without_a_size_has_the_images_size() -> None:
    """As the SDK's own examples write regions; the encoding says how many values it holds."""
    item = painted([[255, 0], [0, 0]])
    del item["original_height"], item["original_width"]
    truth = read(TAG, [item, painted([[0, 255]], "sky")])
    assert truth.target(2, 2).tolist() == [[2, 0], [3, 0]]
    target, left_out = truth.fit(2, 3)
    assert left_out == ("of another size than its image",)
    assert target is not None
    assert target[0].tolist() == [IGNORED, 0, 0]


def test_sizes_may_be_written_as_whole_floats() -> None:
    item = {**painted([[255, 0], [0, 0]]), "original_height": 2.0, "original_width": 2.0}
    assert read(TAG, [item]).target(2, 2).tolist() == [[2, 3], [3, 3]]
    assert reading(TAG, [item]).sizes == {(2, 2)}


def test_alpha_counts_not_colour() -> None:
    pixels = np.array([[255, 255, 255, 0], [0, 0, 0, 255]], np.uint8)
    value = {"format": "rle", "rle": encode_rle(pixels.ravel()), "brushlabels": ["car"]}
    assert read(TAG, [region(TAG, value, (1, 2))]).target(1, 2).tolist() == [[3, 2]]


def test_a_mask_of_another_size_is_resized() -> None:
    truth = read(TAG, [painted([[255, 0], [0, 0]])])
    assert truth.target(4, 4).tolist() == [[2, 2, 3, 3]] * 2 + [[3] * 4] * 2


RLE = mask2rle(np.array([[0, 255], [255, 0]], np.uint8))


def encoded(rle: Any, size: Any = (2, 2)) -> Any:
    return region(TAG, {"format": "rle", "rle": rle, "brushlabels": ["car"]}, size)


@pytest.mark.parametrize(
    "damaged",
    [
        encoded(RLE, (2, 3)),
        encoded(RLE, (-2, -2)),
        encoded(RLE, (2.5, 1.6)),
        encoded(RLE, (True, 4)),
        encoded(RLE[:6]),
        encoded([]),
        encoded(None),
        encoded("rle"),
        encoded([*RLE, 256]),
        encoded([*RLE, -1]),
        encoded([*RLE, 1.5]),
        encoded([*RLE, "1"]),
        encoded([*RLE[:4], 0xFF, *RLE[5:]]),  # values of 32 bits
        encoded([0xFF, 0xFF, 0xFF, 0xFC, *RLE[4:]], (1 << 15, 1 << 15)),  # 4 GiB
    ],
)
def test_what_cannot_be_read_is_omitted_and_counted(damaged: Any) -> None:
    found = reading(TAG, [damaged, painted([[255, 0]], "sky")])
    assert found.left_out == ("damaged",)
    assert found.truth is not None
    assert found.truth.target(1, 2).tolist() == [[0, IGNORED]]
    assert reading(TAG, [damaged]).truth is None


def test_no_mask_larger_than_the_limit_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    item = painted(np.full((10, 10), 255))
    monkeypatch.setattr(brush, "MOST_PIXELS", 100)
    assert reading(TAG, [item]).left_out == ()
    monkeypatch.setattr(brush, "MOST_BYTES", len(item["value"]["rle"]) - 1)
    assert reading(TAG, [item, painted([[255]])]).left_out == ("damaged",)
    monkeypatch.undo()
    monkeypatch.setattr(brush, "MOST_PIXELS", 99)
    assert reading(TAG, [item, painted([[255]])]).left_out == ("damaged",)


def test_a_truncated_encoding_is_omitted_when_it_is_decoded() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (20, 20)).astype(np.uint8) * 255
    broken = painted(noise)
    broken["value"]["rle"] = broken["value"]["rle"][:30]
    half = np.zeros((20, 20), np.uint8)
    half[:, :10] = 255
    truth = read(TAG, [painted(half, "sky"), broken])
    target, left_out = truth.fit(20, 20)
    assert left_out == ("damaged",)
    assert target is not None
    assert target[0].tolist() == [0] * 10 + [IGNORED] * 10


@given(st.binary(max_size=40))
@settings(max_examples=100)
def test_no_encoding_breaks_the_reader(body: bytes) -> None:
    header = (3 * 5 * 4).to_bytes(4, "big") + bytes([7 << 3])
    truth = read(TAG, [encoded(list(header + body), (3, 5)), painted([[255]], "sky")])
    target = truth.target(3, 5)
    assert set(target.unique().tolist()) <= {0, 2, 3, IGNORED}


@pytest.mark.data
@pytest.mark.parametrize("split", [False, True])
def test_real_masks_come_back_as_they_went(
    camvid_masks: list[npt.NDArray[np.uint8]], split: bool
) -> None:
    names = [f"class {index}" for index in range(11)]
    for mask in camvid_masks[:4]:
        finding = segmentation(mask)
        back = returned(TAG, finding, names, smallest_region=0.0, split_regions=split)
        assert (back == mask).all()
        without_specks = returned(TAG, finding, names, split_regions=split)
        changed = without_specks != mask
        assert changed.any()
        assert (without_specks[changed] == len(names)).all()
        for value in np.unique(mask[changed]).tolist():
            specks = (changed & (mask == value)).view(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(specks, connectivity=4)
            assert stats[1:, cv2.CC_STAT_AREA].max() < 0.0005 * mask.size


def test_a_mask_takes_one_byte_per_byte() -> None:
    truth = read(TAG, [painted(np.full((100, 100), 255))])
    (shape,) = truth.shapes  # type: ignore[attr-defined]
    assert isinstance(shape.rle, bytes)
    assert truth.classes == {LABELS[2]}
