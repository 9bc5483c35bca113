from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.drawn_files import make_folder, make_zip

from cdal.datasets import DatasetError, ImageSet, open_images

PLAIN = {f"{label}/{n}.png": f"{label}{n}".encode() for label in ("dog", "cat") for n in range(20)}


def test_the_test_split_has_the_test_images(tmp_path: Path) -> None:
    files = {"train/dog/1.jpg": b"d", "train/cat/1.JPG": b"c", "test/cat/1.jpg": b"t"}
    images = open_images(make_zip(tmp_path / "a.zip", files | {"train/cat/notes.txt": b"x"}))
    assert (images.task, images.classes) == ("classification", ("cat", "dog"))
    assert [(e.name, e.is_test, int(e.target())) for e in images.examples] == [
        ("test/cat/1.jpg", True, 0),
        ("train/cat/1.JPG", False, 0),
        ("train/dog/1.jpg", False, 1),
    ]
    assert [e.image() for e in images.train] == [b"c", b"d"]
    target = images.examples[0].target()
    assert (target.shape, target.dtype) == ((), torch.int64)


@pytest.mark.parametrize(
    ("splits", "test"), [(("train", "val", "test"), {"test"}), (("train", "val"), {"val"})]
)
def test_val_is_for_training_unless_there_is_no_test(
    tmp_path: Path, splits: tuple[str, ...], test: set[str]
) -> None:
    files = {f"{split}/{label}/1.jpg": b"" for split in splits for label in "ab"}
    images = open_images(make_folder(tmp_path, files))
    assert {e.name.split("/")[0] for e in images.test} == test
    assert {e.name.split("/")[0] for e in images.train} == set(splits) - test


def test_without_splits_a_random_quarter_is_held_back(tmp_path: Path) -> None:
    folder, archive = make_folder(tmp_path / "a", PLAIN), make_zip(tmp_path / "a.zip", PLAIN)
    images = open_images(folder)
    assert (len(images.train), len(images.test)) == (30, 10)
    assert held_back(open_images(archive)) == held_back(images)
    assert held_back(open_images(archive, seed=1)) != held_back(images)
    assert all(e.image().decode() == e.name[:-4].replace("/", "") for e in images.examples)


def held_back(images: ImageSet) -> set[str]:
    return {example.name for example in images.test}


def test_parent_folders_do_not_matter(tmp_path: Path) -> None:
    files = {f"set/images/{name}": data for name, data in PLAIN.items()}
    assert open_images(make_zip(tmp_path / "a.zip", files)).classes == ("cat", "dog")


def test_one_class_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match='one folder of images, "cat"; classification needs'):
        open_images(make_folder(tmp_path, {"cat/1.png": b"", "stray.png": b""}))


@pytest.mark.slow
@pytest.mark.data
def test_cifar10(cifar10: Path) -> None:
    images = open_images(cifar10)
    assert (len(images.train), len(images.test)) == (50_000, 10_000)
    assert images.classes[:3] == ("airplane", "automobile", "bird")
    example = images.test[2000]
    assert (example.name, int(example.target())) == ("test/bird/0000.jpg", 2)
    assert example.pixels().shape == (3, 32, 32)
