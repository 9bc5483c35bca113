from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.drawn_files import make_folder, make_zip, mask, picture

from cdal.datasets import DatasetError, open_images

FILES = {
    "classes.txt": b"road\ncar\n",
    "train/images/1.png": picture(3, 2),
    "train/masks/1.png": mask([[0, 1, 0], [7, 255, 1]]),
    "val/images/2.jpg": picture(1, 1, "JPEG"),
    "val/masks/2.png": mask([[1]]),
    "test/images/3.png": picture(1, 1),
    "test/masks/3.png": mask([[0]]),
    "test/images/without.png": picture(1, 1),
    "test/masks/without-image.png": mask([[0]]),
}


def test_by_hand(tmp_path: Path) -> None:
    images = open_images(make_zip(tmp_path / "a.zip", FILES))
    assert (images.task, images.classes) == ("segmentation", ("road", "car"))
    assert [e.name for e in images.train] == ["train/images/1.png", "val/images/2.jpg"]
    assert [e.name for e in images.test] == ["test/images/3.png"]
    target = images.train[0].target()
    assert target.dtype == torch.uint8
    assert target.tolist() == [[0, 1, 0], [255, 255, 1]]


def test_val_is_to_test_with_where_there_is_no_test(tmp_path: Path) -> None:
    files = {name: data for name, data in FILES.items() if not name.startswith("test")}
    images = open_images(make_folder(tmp_path, files))
    assert [e.name for e in images.test] == ["val/images/2.jpg"]


def test_without_splits(tmp_path: Path) -> None:
    files = {"set/classes.txt": b"a"}
    for row in range(8):
        files[f"set/images/{row}.png"] = picture(1, 1)
        files[f"set/masks/{row}.png"] = mask([[0]])
    images = open_images(make_folder(tmp_path, files))
    assert (len(images.train), len(images.test)) == (6, 2)


def test_names_that_stand_for_no_class(tmp_path: Path) -> None:
    """The values of the classes after them stay; only the indices close up."""
    files = {
        "classes.txt": b"void\nroad\nUnlabelled\ncar",
        "images/1.png": picture(4, 1),
        "masks/1.png": mask([[0, 1, 2, 3]]),
        "images/2.png": picture(1, 1),
        "masks/2.png": mask([[3]]),
    }
    images = open_images(make_folder(tmp_path, files))
    assert images.classes == ("road", "car")
    targets = {e.name: e.target().tolist() for e in images.examples}
    assert targets == {"images/1.png": [[255, 0, 255, 1]], "images/2.png": [[1]]}


def test_masks_refer_to_the_upright_image(tmp_path: Path) -> None:
    upright = mask([[0, 0], [1, 1], [0, 1]])  # 2 wide, 3 high
    files = {
        **FILES,
        "train/images/1.png": picture(3, 2, orientation=6),
        "train/masks/1.png": upright,
    }
    example = open_images(make_folder(tmp_path, files)).train[0]
    assert example.target().shape == example.pixels().shape[1:] == (3, 2)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    files = {**FILES, "train/masks/1.png": mask([[0, 1]])}
    images = open_images(make_folder(tmp_path, files))
    with pytest.raises(DatasetError, match=r"^train/masks/1\.png in .* \(1, 2\) .* \(2, 3\)"):
        images.train[0].target()


@pytest.mark.parametrize(
    "names", [b"", b"road\nroad", b"a\n\nb", b"void", b"a\n" + b"\n" * 300 + b"b"]
)
def test_an_invalid_list_of_classes(tmp_path: Path, names: bytes) -> None:
    folder = make_folder(tmp_path, {**FILES, "classes.txt": names})
    with pytest.raises(DatasetError, match=r"classes\.txt in .* must have 1 to 255 lines"):
        open_images(folder)


def test_the_error_says_what_is_missing(tmp_path: Path) -> None:
    nameless = {name: data for name, data in FILES.items() if name != "classes.txt"}
    with pytest.raises(DatasetError, match=r"has images and masks, but no classes\.txt"):
        open_images(make_folder(tmp_path / "a", nameless))
    apart = {"classes.txt": b"a", "images/1.png": b"", "masks/2.png": b""}
    with pytest.raises(DatasetError, match="no image and mask of the same name"):
        open_images(make_folder(tmp_path / "b", apart))


@pytest.mark.data
def test_camvid(camvid: Path) -> None:
    images = open_images(camvid)
    assert (len(images.train), len(images.test)) == (367 + 101, 233)
    assert images.classes == (
        "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car",
        "Pedestrian", "Bicyclist",
    )  # fmt: skip
    example = images.train[0]
    assert example.name == "train/images/0001TP_006690.jpg"
    target = example.target()
    assert example.pixels().shape[1:] == target.shape == (360, 480)
    # It shows a clouded sky, a small car in the middle, and the road beside it.
    for row, column, name in ((20, 240, "Sky"), (300, 240, "Car"), (320, 320, "Road")):
        assert images.classes[int(target[row, column])] == name
    assert set(target.flatten().tolist()) <= {*range(11), 255}
