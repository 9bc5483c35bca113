"""COCO's layout, as COCO itself, Roboflow and CVAT write it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.drawn_files import make_folder, make_zip, picture

from cdal.datasets import DatasetError, open_images
from cdal.models.predictions import IGNORED

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 9, "name": "emu"}]
LEFT_HALF = [[0, 0, 4, 0, 4, 4, 0, 4]]


def content(*names: str, **changes: Any) -> bytes:
    """A dog in the left half of the first image of 8 by 4 pixels, and a cat's box within it."""
    images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
    annotations = [
        {"image_id": 0, "category_id": 7, "bbox": [0, 0, 4, 4], "segmentation": LEFT_HALF},
        {"image_id": 0, "category_id": 3, "bbox": [1, 1, 2, 1]},
        {"image_id": 0, "category_id": 9, "bbox": [0, 0, 8, 4], "iscrowd": 1},
    ]
    whole = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    return json.dumps({**whole, **changes}).encode()


COCOS_OWN = {
    "annotations/instances_train2017.json": content("1.jpg", "2.jpg"),
    "annotations/instances_val2017.json": content("1.jpg"),
    "annotations/captions_val2017.json": b"{}",
    "train2017/1.jpg": picture(8, 4, "JPEG"),
    "train2017/2.jpg": picture(8, 4, "JPEG"),
    "val2017/1.jpg": picture(8, 4, "JPEG"),
}


def test_boxes_by_hand(tmp_path: Path) -> None:
    images = open_images(make_zip(tmp_path / "a.zip", COCOS_OWN))
    assert (images.task, images.classes) == ("detection", ("cat", "dog"))
    assert [example.name for example in images.test] == ["val2017/1.jpg"]
    first, second = images.train
    assert first.target().tolist() == [[0, 0, 4, 4, 1], [1, 1, 3, 2, 0]]
    assert second.target().shape == (0, 5)


def test_masks_by_hand(tmp_path: Path) -> None:
    images = open_images(make_folder(tmp_path, COCOS_OWN), "segmentation")
    assert (images.task, images.classes) == ("segmentation", ("cat", "dog"))
    nothing, dog, cat = IGNORED, 1, 0
    row = [dog] * 4 + [nothing] * 4
    middle = [dog, cat, cat, dog] + [nothing] * 4
    assert images.train[0].target().tolist() == [row, middle, row, row]


def test_a_mask_of_run_lengths(tmp_path: Path) -> None:
    columns = [{"image_id": 0, "category_id": 3, "bbox": [0, 0, 1, 1]}]
    columns[0]["segmentation"] = {"size": [4, 8], "counts": [5, 2, 25]}  # type: ignore[assignment]
    files = {"x.coco.json": content("a.png", annotations=columns), "a.png": picture(8, 4)}
    target = open_images(make_folder(tmp_path, files), "segmentation").examples[0].target()
    assert (target == 0).nonzero().tolist() == [[1, 1], [2, 1]]


@pytest.mark.parametrize(
    ("json_file", "named", "image"),
    [
        ("train/_annotations.coco.json", "a.png", "train/a.png"),
        ("annotations/instances_default.json", "a.png", "images/a.png"),
        ("coco.json", "photos/a.png", "photos/a.png"),
        ("coco.json", "/home/ann/photos/a.png", "images/a.png"),
    ],
)
def test_where_images_may_be(tmp_path: Path, json_file: str, named: str, image: str) -> None:
    files = {json_file: content(named), image: picture(8, 4)}
    assert [e.name for e in open_images(make_folder(tmp_path, files)).examples] == [image]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"[", "is not COCO's JSON"),
        (b"{}", "lacks 'categories'"),
        (content("a.png", annotations=[{"image_id": 5, "category_id": 3}]), "lacks 5"),
        (content("a.png", annotations=[]), "no labelled object"),
        (content("gone.png"), "no labelled object"),
        (
            content("a.png", annotations=[{"image_id": 0, "category_id": 3, "bbox": [0, 0, 1]}]),
            "is not COCO's JSON",
        ),
        *(
            (content("a.png", annotations=[{"image_id": 0, "category_id": 3, **odd}]), "COCO's")
            for odd in (
                {"bbox": [0, 0, 10**400, 1]},
                {"bbox": [0, 0, 1, 1], "segmentation": {"counts": [math.inf]}},
            )
        ),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, given: bytes, message: str) -> None:
    folder = make_folder(tmp_path, {"coco.json": given, "a.png": picture(8, 4)})
    with pytest.raises(DatasetError, match=message):
        open_images(folder)


def test_ids_of_categories_may_be_numbers_and_texts(tmp_path: Path) -> None:
    categories = [{"id": "7", "name": "dog"}, {"id": 3, "name": "cat"}]
    box = {"image_id": 0, "bbox": [0, 0, 1, 1]}
    annotations = [{**box, "category_id": "7"}, {**box, "category_id": 3}]
    given = content("a.png", categories=categories, annotations=annotations)
    images = open_images(make_folder(tmp_path, {"coco.json": given, "a.png": picture(8, 4)}))
    assert images.classes == ("cat", "dog")


def test_a_name_of_several_images_is_refused(tmp_path: Path) -> None:
    files = {"coco.json": content("a.png"), "x/a.png": picture(8, 4), "y/a.png": picture(8, 4)}
    with pytest.raises(DatasetError, match=r"x/a\.png or y/a\.png"):
        open_images(make_folder(tmp_path, files))


@pytest.mark.parametrize("counts", [[10**9, 10**9], [40], [-8, 40]])
def test_run_lengths_of_another_size_are_refused(tmp_path: Path, counts: list[int]) -> None:
    one = {
        "image_id": 0,
        "category_id": 3,
        "bbox": [0, 0, 1, 1],
        "segmentation": {"counts": counts},
    }
    files = {"coco.json": content("a.png", annotations=[one]), "a.png": picture(8, 4)}
    images = open_images(make_folder(tmp_path, files), "segmentation")
    with pytest.raises(DatasetError, match="another size"):
        images.examples[0].target()


def test_a_polygon_far_outside_takes_no_memory(tmp_path: Path) -> None:
    one = {"image_id": 0, "category_id": 3, "segmentation": [[0, 0, 1e12, 0, 1e12, 1e12, 0, 1e12]]}
    files = {"coco.json": content("a.png", annotations=[one]), "a.png": picture(8, 4)}
    images = open_images(make_folder(tmp_path, files), "segmentation")
    assert (images.examples[0].target() == 0).all()
