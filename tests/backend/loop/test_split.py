"""Which images are held out."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from cdal.backend.annotations.choices import ChoiceTruth
from cdal.backend.images.inputs import InputReader
from cdal.backend.images.store import AllowedHosts, ImageSource, ImageStore
from cdal.backend.loop.split import fold, held_out, position, split, without
from cdal.backend.loop.training_images import LabelledImage, TrainingImages
from cdal.models.feature_store import FeatureStore


def content(number: int) -> bytes:
    return sha256(str(number).encode()).digest()[:16]


def classes(**members: range) -> dict[bytes, set[str]]:
    return {content(n): {name} for name, numbers in members.items() for n in numbers}


def test_an_image_keeps_its_side_for_good() -> None:
    """If the split changed, models would be measured on images that they were trained on.

    `printf 8 | sha256sum` begins with 2c62, and 0x2c62 / 0x10000 is 0.17.
    """
    chosen = held_out(classes(cat=range(20), dog=range(20, 40)), 0.2)
    names = [n for n in range(40) if content(n) in chosen]
    assert names == [8, 9, 39]
    more = held_out(classes(cat=range(20), dog=range(20, 500)), 0.2)
    assert {c for c in more if c in classes(all=range(40))} == chosen


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_share_is_about_right(share: float) -> None:
    count = len(held_out(classes(cat=range(10_000)), share))
    assert abs(count / 10_000 - share) < 4 * (share * (1 - share) / 10_000) ** 0.5


def test_a_larger_share_only_adds_images() -> None:
    many = classes(cat=range(500), dog=range(500, 1000))
    assert held_out(many, 0.1) < held_out(many, 0.3)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_small_class_keeps_some_to_learn_from(size: int) -> None:
    for start in range(100, 200):
        rare = range(start, start + size)
        chosen = held_out(classes(cat=range(50), rare=rare), 0.8)
        learnt = set(classes(rare=rare)) - chosen
        below = [n for n in rare if position(content(n)) < 0.8]
        assert len(learnt) == max(1, size - len(below))


def test_an_image_of_two_classes_counts_for_both() -> None:
    out = [n for n in range(100) if position(content(n)) < 0.2][:3]
    out.sort(key=lambda n: position(content(n)))
    both = {content(out[0]): {"a", "b"}, content(out[1]): {"a"}, content(out[2]): {"b"}}
    # For each class, the one that is nearest to the share is learnt from.
    assert held_out(both, 0.2) == {content(out[0])}
    learnt = next(n for n in range(100) if position(content(n)) > 0.2)
    assert held_out({**both, content(learnt): {"a", "b"}}, 0.2) == set(both)


def test_what_a_network_has_learnt_from_is_not_held_out_from_it() -> None:
    """One that is trained further, after `held_out` was raised."""
    many = classes(cat=range(100))
    learnt = set(many) - held_out(many, 0.1)
    assert held_out(many, 0.5, learnt) == held_out(many, 0.1)


def test_folds_are_even_and_independent_of_the_split() -> None:
    counts = [0] * 5
    for n in range(2000):
        if position(content(n)) < 0.2:
            counts[fold(content(n), 5)] += 1
    assert min(counts) > 0.7 * sum(counts) / 5


def images(tmp_path: Path, contents: dict[int, bytes], labels: dict[int, str]) -> TrainingImages:
    store = ImageStore(tmp_path, 0, AllowedHosts.parse("public"))
    items = [
        LabelledImage(n, "", ChoiceTruth(labels[n], ("cat", "dog").index(labels[n])), of)
        for n, of in contents.items()
    ]
    reader = InputReader(store, FeatureStore(tmp_path, 0), ImageSource("http://host", dict))
    return TrainingImages(reader, items)


def test_the_same_image_in_two_tasks_is_on_one_side(tmp_path: Path) -> None:
    """Even if the two were labelled differently."""
    contents = {task: content(task % 100) for task in range(200)}
    labels = {task: "cat" if task % 3 else "dog" for task in range(200)}
    train, measured = split(images(tmp_path, contents, labels), 0.2)
    sides = [{item.content for item in side.items} for side in (train, measured)]
    assert not sides[0] & sides[1]
    assert len(train) + len(measured) == 200
    assert len(measured) == 2 * len(sides[1])


def test_without(tmp_path: Path) -> None:
    some = images(tmp_path, {n: content(n) for n in range(4)}, dict.fromkeys(range(4), "cat"))
    left = without(some, [content(1), content(3), content(9)])
    assert [item.task_id for item in left.items] == [0, 2]
