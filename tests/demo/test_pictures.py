"""The demo's images from a folder or zip of class folders."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from cdal.demo.pictures import Picture, copy_pictures, known_pictures
from cdal.demo.process import DemoError

CLASSES = [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(20)]
SPLIT = [f"{split}/{name}" for split in ("train", "test") for name in CLASSES]


def make_folder(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"image {name}")
    return folder


def make_zip(file: Path, names: Sequence[str]) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, f"image {name}")
    return file


def chosen(pictures: list[Picture]) -> set[tuple[str, str]]:
    return {(p.file.name, p.label) for p in pictures}


def test_of_a_folder_a_quarter_is_held_back(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source", [*CLASSES, "cat/notes.txt", "stray.png"])
    pictures = copy_pictures(source, tmp_path / "copies", 100, seed=0)
    assert Counter(p.is_test for p in pictures) == {False: 30, True: 10}
    assert {p.label for p in pictures} == {"cat", "dog"}
    for picture in pictures:
        assert picture.file.read_text() == f"image {picture.label}/{picture.file.name}"
        assert picture.file.parts[-3] == ("test" if picture.is_test else "train")


def test_the_test_images_of_a_source_are_its_own(tmp_path: Path) -> None:
    source = make_zip(tmp_path / "source.zip", SPLIT)
    pictures = copy_pictures(source, tmp_path / "copies", 12, seed=0)
    assert Counter(p.is_test for p in pictures) == {False: 12, True: 4}
    for picture in pictures:
        split = "test" if picture.is_test else "train"
        assert picture.file.read_text() == f"image {split}/{picture.label}/{picture.file.name}"


def test_folder_and_zip_give_the_same_and_the_seed_decides(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "source", SPLIT)
    archive = make_zip(tmp_path / "source.zip", SPLIT)
    of_folder = chosen(copy_pictures(folder, tmp_path / "a", 12, seed=0))
    assert chosen(copy_pictures(archive, tmp_path / "b", 12, seed=0)) == of_folder
    assert chosen(copy_pictures(archive, tmp_path / "c", 12, seed=1)) != of_folder


def test_a_later_run_finds_the_same(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "source", CLASSES)
    pictures = copy_pictures(source, tmp_path / "copies", 12, seed=0)
    assert sorted(known_pictures(tmp_path / "copies"), key=str) == sorted(pictures, key=str)


@pytest.mark.parametrize("name", ["../../escaped/1.png", "/tmp/escaped/1.png", "a/..\\..\\1.png"])
def test_a_zip_writes_nowhere_else(tmp_path: Path, name: str) -> None:
    names = [name, *(f"cat/{n}.png" for n in range(9))]
    copies = tmp_path / "deep" / "down" / "copies"
    pictures = copy_pictures(make_zip(tmp_path / "bad.zip", names), copies, 100, seed=0)
    assert len(pictures) == 10
    assert all(p.file.resolve().is_relative_to(copies) for p in pictures)
    assert set(tmp_path.rglob("*.png")) == {p.file for p in pictures}


@pytest.mark.parametrize("names", [[], ["cat/1.png"], ["1.png", "2.png"], ["cat/1.txt", "b/2.txt"]])
def test_a_source_without_two_classes_is_refused(tmp_path: Path, names: list[str]) -> None:
    source = make_zip(tmp_path / "source.zip", names)
    with pytest.raises(DemoError, match="has no two folders of images; it needs a folder a class"):
        copy_pictures(source, tmp_path / "copies", 10, seed=0)


def test_a_source_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for source in (tmp_path / "text", tmp_path / "missing"):
        with pytest.raises(DemoError, match="is neither a folder nor a zip of class folders"):
            copy_pictures(source, tmp_path / "copies", 10, seed=0)
