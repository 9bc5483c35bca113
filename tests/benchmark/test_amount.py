from __future__ import annotations

import pytest

from cdal.benchmark.amount import Amount, budgets
from cdal.benchmark.errors import BenchmarkError


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
