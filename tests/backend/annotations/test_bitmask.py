"""BitmaskLabels: predictions out, masks in."""

from __future__ import annotations

from base64 import b64decode, b64encode
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from support.annotated import png_of, predicted, read, reading, region, returned, segmentation

from cdal.backend.annotations import bitmask
from cdal.demo.scenes.scene import CLASSES, draw_scene
from cdal.models.predictions import IGNORED

TAG = "BitmaskLabels"


def masked(address: Any, label: str = "car", size: Any = (2, 2)) -> Any:
    return region(TAG, {"imageDataURL": address, "bitmasklabels": [label]}, size)


def painted(alpha: npt.ArrayLike, label: str = "car") -> Any:
    """A region whose mask has opacities from 0 to 255."""
    return masked(png_of(alpha), label, np.shape(alpha))


def written(image: Image.Image, kind: str = "png", **options: Any) -> str:
    file = BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind};base64,{b64encode(file.getvalue()).decode()}"


def test_label_studio_accepts_the_prediction() -> None:
    labels = [[3, 1, 3], [3, 1, 0]]
    big, small = predicted(TAG, segmentation(labels, [[0.123456]]), smallest_region=0.0)
    start, _, body = big["value"].pop("imageDataURL").partition(",")
    assert big == {
        "id": "bitmask0",
        "from_name": "what",
        "to_name": "image",
        "type": "bitmasklabels",
        "original_width": 3,
        "original_height": 2,
        "image_rotation": 0,
        "value": {"bitmasklabels": ["road"]},
        "score": 0.1235,
    }
    assert start == "data:image/png;base64"
    with Image.open(BytesIO(b64decode(body))) as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")
        assert np.asarray(image).tolist() == [[[0] * 4, [0, 0, 0, 255], [0] * 4]] * 2
    assert (small["id"], small["value"]["bitmasklabels"]) == ("bitmask1", ["sky"])


@pytest.mark.parametrize("split", [False, True])
def test_masks_come_back_as_they_went(split: bool) -> None:
    for index in range(4):
        mask = draw_scene(0, index).mask
        labels = np.where(mask == 0, len(CLASSES), mask - 1)
        settings = {"smallest_region": 0.0, "split_regions": split}
        assert (returned(TAG, segmentation(labels), CLASSES, **settings) == labels).all()


def test_soft_edges_count_from_half_of_the_masks_own_maximum() -> None:
    assert read(TAG, [painted([[0, 127, 128, 255]])]).target(1, 4).tolist() == [[3, 3, 2, 2]]
    assert read(TAG, [painted([[0, 49, 50, 100]])]).target(1, 4).tolist() == [[3, 3, 2, 2]]


def test_a_mask_is_stretched_over_its_image() -> None:
    """As Label Studio's page does, whatever size the region claims."""
    truth = read(TAG, [{**painted([[255, 0]]), "original_height": 7}])
    assert truth.target(2, 4).tolist() == [[2, 2, 3, 3]] * 2


@pytest.mark.parametrize(
    "address",
    [
        written(Image.fromarray(np.array([[[9, 255], [255, 0]]], np.uint8), "LA")),
        written(Image.fromarray(np.array([[1, 0]], np.uint8), "P"), transparency=0),
    ],
)
def test_transparency_of_any_kind_counts_not_colour(address: str) -> None:
    assert read(TAG, [masked(address, size=(1, 2))]).target(1, 2).tolist() == [[2, 3]]


def test_a_mask_without_transparency_covers_its_image() -> None:
    """Label Studio's page shows it so: black pixels count as much as white ones."""
    address = written(Image.fromarray(np.array([[0, 255]], np.uint8)))
    assert read(TAG, [masked(address)]).target(1, 2).tolist() == [[2, 2]]


def test_an_empty_mask_has_no_effect() -> None:
    empty, sky = painted([[0, 0, 0]]), painted([[255, 0, 0]], "sky")
    target, left_out = read(TAG, [sky, empty]).fit(1, 3)
    assert left_out == ("covering no pixel",)
    assert target is not None
    assert target.tolist() == [[0, IGNORED, IGNORED]]


def test_a_mask_that_covers_nothing_once_it_is_resized_makes_no_background() -> None:
    one_pixel = painted([[255, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert read(TAG, [one_pixel]).fit(1, 1) == (None, ("covering no pixel",))


PNG = png_of([[0, 255], [255, 0]])


@pytest.mark.parametrize(
    "address",
    [
        None,
        7,
        "",
        "mask.png",
        "https://example.com/mask.png",
        "data:image/png;base64",
        "data:image/png;base64,====",
        written(Image.new("RGB", (2, 2)), "jpeg"),
        PNG[:40],
    ],
)
def test_what_is_not_a_png_is_omitted_and_counted(address: Any) -> None:
    found = reading(TAG, [masked(address), painted([[255, 0]], "sky")])
    assert found.left_out == ("damaged",)
    assert found.truth is not None
    assert found.truth.target(1, 2).tolist() == [[0, IGNORED]]


def test_a_png_that_ends_too_early_is_omitted_when_it_is_decoded() -> None:
    broken = png_of(np.random.default_rng(0).integers(0, 2, (20, 20)) * 255)[:120]
    target, left_out = read(TAG, [painted([[255, 0]], "sky"), masked(broken)]).fit(1, 2)
    assert left_out == ("damaged",)
    assert target is not None
    assert target.tolist() == [[0, IGNORED]]


def test_no_mask_larger_than_the_limit_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    item, small = painted(np.full((10, 10), 255)), painted([[255]])
    monkeypatch.setattr(bitmask, "MOST_PIXELS", 100)
    assert reading(TAG, [item, small]).left_out == ()
    monkeypatch.setattr(bitmask, "MOST_PIXELS", 99)
    assert reading(TAG, [item, small]).left_out == ("damaged",)
    monkeypatch.undo()
    monkeypatch.setattr(bitmask, "MOST_BYTES", len(b64decode(item["value"]["imageDataURL"][22:])))
    assert reading(TAG, [item]).left_out == ()
    monkeypatch.setattr(bitmask, "MOST_BYTES", bitmask.MOST_BYTES - 1)
    assert reading(TAG, [item]).left_out == ("damaged",)
