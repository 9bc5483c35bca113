"""How many images are labelled at each step, and which ones at first."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from torch import Tensor

from cdal.benchmark.errors import BenchmarkError


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of images as typed: "150", or "10%" of the training images.

    Attributes:
        text: as typed.
        value: a number of images, or a share of them.
        is_share: which of the two it is.
    """

    text: str
    value: Fraction
    is_share: bool

    @classmethod
    def read(cls, text: str, option: str) -> Amount:
        """Parse an amount from the command line.

        Raises:
            BenchmarkError: it is not an amount, not above 0, or above 100%.
        """
        is_share = text.endswith("%")
        try:
            value = Fraction(text.removesuffix("%").strip()) / (100 if is_share else 1)
        except (ValueError, ZeroDivisionError):
            value = Fraction(0)
        if value <= 0 or (is_share and value > 1) or (not is_share and value.denominator != 1):
            raise BenchmarkError(
                f"--{option} must be a number of images or a share of them, such as 150 or 10%, "
                f"not {text!r}."
            )
        return cls(text, value, is_share)

    def of(self, pool: int) -> Fraction:
        """The number of images out of a pool of this size, not yet rounded."""
        return self.value * pool if self.is_share else self.value


def budgets(initial: Amount, step: Amount, until: Amount, pool: int) -> tuple[int, ...]:
    """The sizes of the labelled set, from the initial one, step by step, to the last.

    Only the sums are rounded, so ten steps of 1% are a tenth of any pool.

    Args:
        initial: images labelled initially.
        step: images labelled per step.
        until: images labelled at most.
        pool: number of training images.

    Raises:
        BenchmarkError: an amount comes to no image, or to more images than there are.
    """
    first, more, last = initial.of(pool), step.of(pool), until.of(pool)
    if last > pool:
        raise BenchmarkError(f"--until {until.text} is more than the {pool} images of the pool.")
    if round(first) < 1 or more < 1:
        raise BenchmarkError(
            f"--initial {initial.text} and --step {step.text} must each come to at least one of "
            f"the pool's {pool} images."
        )
    if first > last:
        raise BenchmarkError(f"--initial {initial.text} is more than --until {until.text}.")
    return tuple(round(first + more * k) for k in range(int((last - first) // more) + 1))


def region_budgets(
    initial: Amount, step: Amount, until: Amount, images: int, cells: int
) -> tuple[int, ...]:
    """The numbers of labelled regions; at first, whole images are labelled.

    Args:
        initial: images labelled initially.
        step: regions labelled per step.
        until: regions labelled at most.
        images: number of training images.
        cells: regions per image.

    Raises:
        BenchmarkError: as ``budgets``.
    """
    whole = max(1, round(initial.of(images)))
    text = f"{initial.text} ({whole * cells} regions)"
    first = Amount(text, Fraction(whole * cells), is_share=False)
    return budgets(first, step, until, images * cells)


def draw_initial_set(counts: Tensor, size: int, seed: int, left_out: int = 0) -> list[int]:
    """Draw rows of the pool at random.

    A larger set drawn with the same seed begins with the smaller one.

    Args:
        counts: how often each class occurs in each image's target, (N, C).
        size: number of images.
        seed: of the draw.
        left_out: number of classes that occur in none of the images (the biased initial pool of
            the paper's section 9). They are drawn at random too, among those without which enough
            images remain.

    Raises:
        BenchmarkError: that many classes cannot be left out.
    """
    order = np.random.default_rng([seed, 1]).permutation(len(counts))
    allowed = np.ones(len(counts), dtype=bool)
    missing = 0
    for label in np.random.default_rng([seed, 2]).permutation(counts.shape[1]):
        without = allowed & (counts[:, int(label)] == 0).numpy()
        if missing < left_out and without.sum() >= size:
            allowed = without
            missing += 1
    if missing < left_out:
        raise BenchmarkError(
            f"--bias {left_out} is impossible: an initial set of {size} images can do without "
            f"{missing} of the {counts.shape[1]} classes, tried in random order."
        )
    return [int(row) for row in order[allowed[order]][:size]]
