from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cdal.benchmark.data_set import DataSet, Part, open_data_set
from cdal.benchmark.errors import BenchmarkError
from cdal.datasets import DatasetError
from cdal.models import BACKGROUND, IGNORED

Scenes = Callable[[str], Path]


@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
def test_the_splits_are_pool_and_test(task: str, scenes: Scenes) -> None:
    data = open_data_set(scenes(task), None, "ignore")
    assert data.task == task
    assert (len(data.pool), len(data.test)) == (18, 6)
    assert not set(data.pool.names) & set(data.test.names)
    image, _ = data.pool[0]
    assert image.shape == (3, 64, 64)


def test_unlabelled_pixels_may_be_a_class(scenes: Scenes) -> None:
    ignored = open_data_set(scenes("segmentation"), None, "ignore")
    background = open_data_set(scenes("segmentation"), None, "background")
    assert background.classes == (*ignored.classes, BACKGROUND)
    one, other = ignored.pool[0][1], background.pool[0][1]
    assert torch.equal(other[one == IGNORED].unique(), torch.tensor([6], dtype=torch.uint8))
    assert torch.equal(one[one != IGNORED], other[one != IGNORED])


def test_background_is_of_segmentation_alone(scenes: Scenes) -> None:
    with pytest.raises(BenchmarkError, match="--unlabelled has no effect"):
        open_data_set(scenes("detection"), None, "background")


def test_a_limit_is_a_part_that_is_always_the_same(scenes: Scenes) -> None:
    data = open_data_set(scenes("classification"), None, "ignore")
    part, again = data.limited(5, 3), data.limited(5, 3)
    assert part.pool.names == again.pool.names
    assert (len(part.pool), len(part.test)) == (5, 3)
    rows = [data.pool.names.index(name) for name in part.pool.names]
    assert rows == sorted(rows)
    for row, (image, target) in zip(rows, part.pool, strict=True):
        assert torch.equal(image, data.pool[row][0])
        assert torch.equal(target, data.pool[row][1])
    assert data.limited(99, None).fingerprint == data.fingerprint != part.fingerprint


def test_nothing_to_measure_with_is_refused() -> None:
    class One:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int, /) -> tuple[torch.Tensor, torch.Tensor]:
            raise IndexError

    with pytest.raises(DatasetError, match="There are no test images"):
        DataSet("classification", ("a",), Part(("x",), One()), Part((), One()))
