from __future__ import annotations

import pytest
import torch

from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.noise import Noise
from cdal.benchmark.super_classes import SUPER_CLASSES, super_classes_of
from cdal.models import IGNORED


def test_about_the_asked_share_of_images_has_any_other_class() -> None:
    noise = Noise("classification", 4, 0.3, seed=0)
    found = [int(noise(row, torch.tensor(2))) for row in range(2000)]
    # Four standard deviations of 2,000 draws are 0.041.
    assert abs(found.count(2) / 2000 - 0.7) < 0.041
    assert abs(found.count(0) / 2000 - 0.1) < 0.027
    assert set(found) == {0, 1, 2, 3}


@pytest.mark.parametrize(("share", "right"), [(0.0, 50), (1.0, 0)])
def test_none_or_all_are_wrong(share: float, right: int) -> None:
    noise = Noise("classification", 3, share, seed=0)
    assert sum(int(noise(row, torch.tensor(1))) == 1 for row in range(50)) == right


def test_it_is_fixed_by_seed_and_row() -> None:
    one, same, other = (Noise("classification", 9, 0.5, seed) for seed in (0, 0, 1))
    rows = range(30)
    label = torch.tensor(4)
    first = [int(one(row, label)) for row in reversed(rows)][::-1]
    assert first == [int(same(row, label)) for row in rows]
    assert first != [int(other(row, label)) for row in rows]


def test_each_class_of_an_image_may_be_wrong() -> None:
    labels = torch.tensor([1.0, 0, 0])
    assert Noise("multilabel", 3, 1.0, seed=0)(0, labels).tolist() == [0, 1, 1]
    noise = Noise("multilabel", 3, 0.3, seed=0)
    found = torch.stack([noise(row, labels) for row in range(2000)])
    # Four standard deviations of 2,000 draws are 0.041.
    assert found.mean(0).tolist() == pytest.approx([0.7, 0.3, 0.3], abs=0.041)


def test_a_box_keeps_its_place() -> None:
    boxes = torch.tensor([[1.0, 2, 3, 4, 0], [5, 6, 7, 8, 1]])
    changed = Noise("detection", 2, 1.0, seed=0)(0, boxes)
    assert changed.tolist() == [[1, 2, 3, 4, 1], [5, 6, 7, 8, 0]]
    assert boxes[:, 4].tolist() == [0, 1]


def test_an_image_without_boxes_keeps_none() -> None:
    assert Noise("detection", 2, 1.0, seed=0)(0, torch.zeros(0, 5)).shape == (0, 5)


def test_all_pixels_of_a_class_are_taken_for_one_other() -> None:
    mask = torch.tensor([[0, 0, 1], [1, 2, IGNORED]], dtype=torch.uint8)
    changed = Noise("segmentation", 2, 1.0, seed=0)(0, mask)
    # Class 2 is background here, which annotators do not label.
    assert changed.tolist() == [[1, 1, 0], [0, 2, IGNORED]]
    assert changed.dtype == torch.uint8


def test_one_class_cannot_be_taken_for_another() -> None:
    with pytest.raises(BenchmarkError, match="at least two classes"):
        Noise("classification", 1, 0.1, seed=0)


def test_a_class_is_mistaken_for_one_of_its_super_class() -> None:
    noise = Noise("classification", 5, 1.0, seed=0, super_classes=(0, 1, 0, 1, 0))
    assert {int(noise(row, torch.tensor(2))) for row in range(50)} == {0, 4}
    assert {int(noise(row, torch.tensor(1))) for row in range(9)} == {3}


def test_the_super_classes_are_those_of_cifar_100() -> None:
    names = [name for group in SUPER_CLASSES for name in group]
    assert len(set(names)) == 100
    found = super_classes_of(sorted(names))
    assert found is not None
    assert [found.count(group) for group in range(20)] == [5] * 20
    assert super_classes_of(["cat", "dog"]) is None
