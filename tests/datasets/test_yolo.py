"""YOLO's layout, as Ultralytics, Roboflow and Label Studio write it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.drawn_files import make_folder, make_zip, picture

from cdal.datasets import DatasetError, open_images
from cdal.models.predictions import IGNORED

BOX = b"1 0.5 0.5 0.25 0.5\n"
TRIANGLE = b"0 0 0 1 0 1 1 0 1\n"

ULTRALYTICS = {
    "data.yaml": b"path: .\nnames:\n  0: cat\n  1: dog\n",
    "images/train/a.png": picture(8, 4),
    "images/train/b.png": picture(8, 4),
    "images/val/a.png": picture(8, 4),
    "labels/train/a.txt": BOX + TRIANGLE,
    "labels/val/a.txt": b"",
}


def test_boxes_by_hand(tmp_path: Path) -> None:
    images = open_images(make_zip(tmp_path / "a.zip", ULTRALYTICS))
    assert (images.task, images.classes) == ("detection", ("cat", "dog"))
    assert [example.name for example in images.test] == ["images/val/a.png"]
    first, second = images.train
    assert first.target().tolist() == [[3, 1, 5, 3, 1], [0, 0, 8, 4, 0]]
    assert second.target().shape == (0, 5)


def test_masks_by_hand(tmp_path: Path) -> None:
    files = {**ULTRALYTICS, "labels/train/a.txt": BOX + b"0 0 0 1 0 1 0.5 0 0.5\n"}
    target = open_images(make_folder(tmp_path, files), "segmentation").train[0].target()
    cat, dog, nothing = 0, 1, IGNORED
    assert target.tolist() == [
        [cat] * 8,
        [cat, cat, cat, dog, dog, cat, cat, cat],
        [nothing, nothing, nothing, dog, dog, nothing, nothing, nothing],
        [nothing] * 8,
    ]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ({"data.yaml": b"names: [cat, dog]"}, ("cat", "dog")),
        ({"data.yaml": b"day: 2024-02-30\nnames: {0: yes, 1: no}"}, ("yes", "no")),
        ({"classes.txt": b"cat\ndog\n"}, ("cat", "dog")),
        ({"notes.yaml": b"a: 1"}, ("0", "1")),
        ({}, ("0", "1")),
    ],
)
def test_names_and_folders_of_other_tools(
    tmp_path: Path, names: dict[str, bytes], classes: tuple[str, ...]
) -> None:
    files = {
        **names,
        "train/images/a.png": picture(8, 4),
        "train/labels/a.txt": BOX + TRIANGLE,
        "valid/images/b.png": picture(8, 4),
        "valid/labels/b.txt": b"0 0.5 0.5 1 1 0.93\n",
        "test/images/c.png": picture(8, 4),  # without a folder of labels
    }
    images = open_images(make_folder(tmp_path, files))
    assert images.classes == classes
    assert [example.name for example in images.test] == ["valid/images/b.png"]
    assert len(images.examples) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"2 0.5 0.5 1 1", "class 2 has no name"),
        (b"-1 0.5 0.5 1 1", "class -1 has no name"),
        (b"0 0.5 0.5 1", "neither a box nor a polygon"),
        (b"0 0.5 0.5 nan 1", "not a number"),
        (b"cat 0.5 0.5 1 1", "is not YOLO's"),
        (b"", "no labelled object"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, text: bytes, message: str) -> None:
    folder = make_folder(tmp_path, {**ULTRALYTICS, "labels/train/a.txt": text})
    with pytest.raises(DatasetError, match=message):
        open_images(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"names: [cat, cat]", "class name twice"),
        (b"names: {0: cat, 2: dog}", "without a gap"),
        (b"names: [", "is not YAML"),
        (b"!!python/object/apply:os.system [echo]", "is not YAML"),
        (b"date: !!timestamp never", "is not YAML"),
        (b"names: {0: cat, 1: }", "without a gap"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b]", "without a gap"),
    ],
)
def test_names_that_cannot_be_read(tmp_path: Path, text: bytes, message: str) -> None:
    folder = make_folder(tmp_path, {**ULTRALYTICS, "data.yaml": text})
    with pytest.raises(DatasetError, match=message):
        open_images(folder)
