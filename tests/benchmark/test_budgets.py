from __future__ import annotations

import pytest
import torch

from cdal.benchmark.budgets import Amount, budgets, draw_initial_set, region_budgets
from cdal.benchmark.errors import BenchmarkError

COUNTS = torch.eye(4, dtype=torch.int64).repeat(10, 1)  # image i has class i % 4


def sizes(initial: str, step: str, until: str, pool: int) -> tuple[int, ...]:
    return budgets(
        Amount.read(initial, "initial"),
        Amount.read(step, "step"),
        Amount.read(until, "until"),
        pool,
    )


def test_shares_of_a_round_pool() -> None:
    assert sizes("10%", "5%", "40%", 1000) == (100, 150, 200, 250, 300, 350, 400)


def test_only_the_sums_are_rounded() -> None:
    # 36.7, 55.05, 73.4, …, 146.8 of CamVid's 367 images
    assert sizes("10%", "5%", "40%", 367) == (37, 55, 73, 92, 110, 128, 147)


def test_a_share_that_is_no_binary_fraction_ends_where_it_should() -> None:
    assert sizes("0.1%", "0.1%", "0.3%", 1000) == (1, 2, 3)


def test_numbers_and_shares_together() -> None:
    assert sizes("20", "10%", "50%", 200) == (20, 40, 60, 80, 100)


def test_a_step_that_leads_beyond_the_end_is_left_out() -> None:
    assert sizes("10", "7", "30", 100) == (10, 17, 24)


def test_one_size_is_no_step() -> None:
    assert sizes("10", "10", "10", 10) == (10,)


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "1.5", "0%", "101%", "1/0"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(BenchmarkError, match="--step must be a number of images or a share"):
        Amount.read(text, "step")


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        (("10", "10", "101"), "--until 101 is more than the 100 images"),
        (("0.1%", "10", "50"), "must each come to at least one"),
        (("10", "0.1%", "50"), "must each come to at least one"),
        (("60", "10", "50"), "--initial 60 is more than --until 50"),
    ],
)
def test_impossible_amounts_are_refused(amounts: tuple[str, str, str], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        sizes(*amounts, pool=100)


def test_initial_images_are_told_in_regions_where_regions_are_labelled() -> None:
    amounts = [Amount.read(text, "initial") for text in ("3", "5", "12")]
    assert region_budgets(*amounts, images=100, cells=2) == (6, 11)
    with pytest.raises(BenchmarkError, match=r"--initial 3 \(36 regions\) is more than --until 12"):
        region_budgets(*amounts, images=100, cells=12)


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
