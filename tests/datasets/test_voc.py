from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.drawn_files import annotation, make_folder, make_zip, picture

from cdal.datasets import DatasetError, open_images

FILES = {
    "JPEGImages/a.jpg": picture(40, 20, "JPEG"),
    "Annotations/a.xml": annotation(("dog", 1, 1, 40, 20), ("cat", 11, 6, 20, 10)),
    "JPEGImages/b.jpg": picture(40, 20, "JPEG"),
    "Annotations/b.xml": annotation(),
    "JPEGImages/c.jpg": picture(40, 20, "JPEG"),
    "Annotations/c.xml": annotation(("cat", 1, 1, 2, 2)),
    "JPEGImages/without.jpg": picture(40, 20, "JPEG"),
    "Annotations/without-image.xml": annotation(("mouse", 1, 1, 2, 2)),
}
MAIN = "ImageSets/Main/"


def test_by_hand(tmp_path: Path) -> None:
    images = open_images(make_zip(tmp_path / "a.zip", FILES))
    assert (images.task, images.classes) == ("detection", ("cat", "dog"))
    by_name = {e.name: e.target() for e in images.examples}
    assert list(by_name) == ["JPEGImages/a.jpg", "JPEGImages/b.jpg", "JPEGImages/c.jpg"]
    # VOC counts pixels from 1, and boxes include the last one.
    assert by_name["JPEGImages/a.jpg"].tolist() == [[0, 0, 40, 20, 1], [10, 5, 20, 10, 0]]
    negative = by_name["JPEGImages/b.jpg"]
    assert (negative.shape, negative.dtype) == ((0, 5), torch.float32)


def test_only_the_classes_of_an_images_boxes(tmp_path: Path) -> None:
    images = open_images(make_folder(tmp_path, FILES), "multilabel")
    assert (images.task, images.classes) == ("multilabel", ("cat", "dog"))
    targets = [example.target() for example in images.examples]
    assert [target.tolist() for target in targets] == [[1, 1], [0, 0], [1, 0]]
    assert targets[0].dtype == torch.float32


def test_boxes_are_clipped_and_empty_ones_dropped(tmp_path: Path) -> None:
    odd = annotation(("cat", 0, -5, 99, 10), ("cat", 50, 1, 60, 9), ("dog", 9, 9, 8, 20))
    images = open_images(make_folder(tmp_path, {**FILES, "Annotations/a.xml": odd}))
    assert images.examples[0].target().tolist() == [[0, 0, 40, 10, 0]]


def test_boxes_refer_to_the_upright_image(tmp_path: Path) -> None:
    files = {
        **FILES,
        "JPEGImages/a.jpg": picture(40, 20, "JPEG", orientation=6),
        "Annotations/a.xml": annotation(("cat", 1, 1, 20, 40)),
    }
    example = open_images(make_folder(tmp_path, files)).examples[0]
    assert example.size() == (40, 20)
    assert example.target().tolist() == [[0, 0, 20, 40, 0]]


@pytest.mark.parametrize(
    ("lists", "train", "test"),
    [
        ({"train": "a", "val": "b", "test": "c"}, "ab", "c"),
        ({"trainval": "a\nb", "train": "a", "val": "b", "test": "c"}, "ab", "c"),
        ({"trainval": "a\nb", "train": "a", "val": "b"}, "a", "b"),
        ({"train": "a  1\n", "test": "b -1\n"}, "a", "b"),
        # A test list of images without annotations, as in VOC 2012, does not count.
        ({"train": "a", "val": "b", "test": "without"}, "a", "b"),
    ],
)
def test_lists(tmp_path: Path, lists: dict[str, str], train: str, test: str) -> None:
    texts = {f"{MAIN}{name}.txt": text.encode() for name, text in lists.items()}
    texts[f"{MAIN}dog_train.txt"] = b"c 1"
    images = open_images(make_folder(tmp_path, {**FILES, **texts}))
    assert [e.name for e in images.train] == [f"JPEGImages/{name}.jpg" for name in train]
    assert [e.name for e in images.test] == [f"JPEGImages/{name}.jpg" for name in test]


def test_inside_other_folders(tmp_path: Path) -> None:
    files = {f"VOCdevkit/VOC2007/{name}": data for name, data in FILES.items()}
    assert len(open_images(make_folder(tmp_path, files)).examples) == 3
    two = files | {f"VOCdevkit/VOC2012/{name}": data for name, data in FILES.items()}
    with pytest.raises(DatasetError, match=r"several data sets .*: VOCdevkit/VOC2007, VOCdevkit"):
        open_images(make_folder(tmp_path, two))


BOMB = b"""<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">]>
<annotation><object><name>&y;</name></object></annotation>"""
FILE = b"""<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>
<annotation><object><name>&x;</name></object></annotation>"""


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<annotation>",
        BOMB,
        FILE,
        annotation(("cat", 1, 1, 2, 2)).replace(b"<xmin>1<", b"<xmin>one<"),
        annotation(("cat", 1, 1, 2, 2)).replace(b"<xmin>1<", b"<xmin>nan<"),
        annotation((" ", 1, 1, 2, 2)),
        b"<annotation><object><name>cat</name></object></annotation>",
    ],
)
def test_an_annotation_that_is_none_is_named(tmp_path: Path, text: bytes) -> None:
    folder = make_folder(tmp_path, {**FILES, "Annotations/a.xml": text})
    with pytest.raises(DatasetError, match=r"^Annotations/a\.xml in .* is not a VOC annotation"):
        open_images(folder)


def test_images_without_any_annotation(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has 1 images in JPEGImages and 0 files in Annotations"):
        open_images(make_folder(tmp_path, {"JPEGImages/a.jpg": b""}))


@pytest.mark.data
def test_bccd(bccd: Path) -> None:
    images = open_images(bccd)
    assert (len(images.train), len(images.test)) == (292, 72)
    assert images.classes == ("Platelets", "RBC", "WBC")
    example = images.train[0]
    assert example.name == "JPEGImages/BloodImage_00000.jpg"
    assert example.pixels().shape == (3, 480, 640)
    target = example.target()
    # The first two objects of the file: WBC 260 177 491 376, RBC 78 336 184 435.
    assert target[:2].tolist() == [[259, 176, 491, 376, 2], [77, 335, 184, 435, 1]]
    assert target[:, 4].long().bincount().tolist() == [0, 19, 1]
