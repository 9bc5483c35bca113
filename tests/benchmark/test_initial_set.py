from __future__ import annotations

import pytest
import torch

from cdal.benchmark.amount import draw_initial_set
from cdal.benchmark.errors import BenchmarkError

COUNTS = torch.eye(4, dtype=torch.int64).repeat(10, 1)  # image i has class i % 4


def test_it_is_fixed_by_the_seed() -> None:
    assert draw_initial_set(COUNTS, 10, seed=1) == draw_initial_set(COUNTS, 10, seed=1)
    assert draw_initial_set(COUNTS, 10, seed=1) != draw_initial_set(COUNTS, 10, seed=2)


def test_rows_are_of_the_pool_and_none_comes_twice() -> None:
    assert sorted(draw_initial_set(COUNTS, 40, seed=0)) == list(range(40))


def test_a_larger_set_begins_with_a_smaller_one() -> None:
    assert draw_initial_set(COUNTS, 20, seed=3)[:5] == draw_initial_set(COUNTS, 5, seed=3)


@pytest.mark.parametrize("left_out", [0, 1, 2, 3])
def test_so_many_classes_are_left_out(left_out: int) -> None:
    rows = draw_initial_set(COUNTS, 10, seed=0, left_out=left_out)
    assert len(rows) == 10
    assert len({row % 4 for row in rows}) == 4 - left_out


def test_other_seeds_leave_out_other_classes() -> None:
    kept = {draw_initial_set(COUNTS, 5, seed, left_out=3)[0] % 4 for seed in range(20)}
    assert kept == {0, 1, 2, 3}


def test_a_class_without_which_too_few_images_remain_is_kept() -> None:
    counts = torch.tensor([[1, 1], [1, 0], [1, 0], [1, 1]])  # all have class 0
    for seed in range(5):
        assert sorted(draw_initial_set(counts, 2, seed, left_out=1)) == [1, 2]


def test_more_classes_than_can_be_left_out_are_refused() -> None:
    with pytest.raises(BenchmarkError, match="can do without 3 of the 4 classes"):
        draw_initial_set(COUNTS, 10, seed=0, left_out=4)
    with pytest.raises(BenchmarkError, match="can do without 2 of the 4 classes"):
        draw_initial_set(COUNTS, 15, seed=0, left_out=3)
