"""The images that the demo chooses, and their copies for Label Studio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from cdal.datasets import Example, ImageSet, open_images
from cdal.demo.pictures import choose, copy_pictures, known_examples, pictures_of
from cdal.demo.process import DemoError


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = tmp_path / "source" / split / label
            folder.mkdir(parents=True)
            for number in range(20):
                (folder / f"{number}.PNG").write_text(f"{split} {label} {number}")
    return open_images(tmp_path / "source")


def counts(examples: Sequence[Example]) -> tuple[int, int]:
    """The numbers of examples to label and to test on."""
    test = sum(example.is_test for example in examples)
    return len(examples) - test, test


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, (40, 13)), (12, (12, 4)), (2, (2, 1)), (99, (40, 13))]
)
def test_there_are_a_third_as_many_test_images(
    images: ImageSet, limit: int | None, expected: tuple[int, int]
) -> None:
    chosen = choose(images, limit, seed=0)
    assert counts(chosen) == expected
    assert len({example.name for example in chosen}) == len(chosen)


def test_the_choice_depends_on_the_seed(images: ImageSet) -> None:
    assert choose(images, 12, seed=0) == choose(images, 12, seed=0)
    assert choose(images, 12, seed=0) != choose(images, 12, seed=1)


def test_copies_do_not_reveal_labels_and_test_images_have_none(
    images: ImageSet, tmp_path: Path
) -> None:
    examples = choose(images, 12, seed=0)
    copy_pictures(examples, tmp_path / "served")
    pictures = pictures_of(examples, tmp_path / "served")
    assert [picture.example for picture in pictures] == examples[:12]
    assert [picture.file.read_bytes() for picture in pictures] == [
        example.image() for example in examples[:12]
    ]
    assert pictures[3].file == tmp_path / "served" / "pictures" / "00003.png"
    assert pictures[3].address == "/data/local-files/?d=pictures/00003.png"
    assert set(tmp_path.rglob("pictures/*")) == {picture.file for picture in pictures}


def test_a_later_run_finds_the_same(images: ImageSet, tmp_path: Path) -> None:
    examples = choose(images, 12, seed=0)
    assert known_examples(images, tmp_path) is None
    copy_pictures(examples, tmp_path)
    again = open_images(tmp_path / "source")
    found = known_examples(again, tmp_path)
    assert found is not None
    assert [(e.name, e.is_test) for e in found] == [(e.name, e.is_test) for e in examples]


def test_a_changed_source_is_refused(images: ImageSet, tmp_path: Path) -> None:
    copy_pictures(choose(images, None, seed=0), tmp_path)
    (tmp_path / "source" / "train" / "cat" / "0.PNG").unlink()
    with pytest.raises(DemoError, match=r"images have changed.*make clean"):
        known_examples(open_images(tmp_path / "source"), tmp_path)
