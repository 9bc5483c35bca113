"""How many images are labelled at each step, and which ones at first."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from torch import Tensor

from cdal.benchmark.errors import BenchmarkError


@dataclass(frozen=True, slots=True)
class Amount:
    """Images, as somebody typed them: "150" or "10%" of the training images.

    Attributes:
        text: as it was typed.
        value: a number of images, or a share of them.
        is_share: which of the two.
    """

    text: str
    value: Fraction
    is_share: bool

    @classmethod
    def read(cls, text: str, option: str) -> Amount:
        """An amount from a command line.

        Raises:
            BenchmarkError: it is none, or nothing, or more than everything.
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
        """So many of this many images, not yet rounded."""
        return self.value * pool if self.is_share else self.value


def budgets(initial: Amount, step: Amount, until: Amount, pool: int) -> tuple[int, ...]:
    """The sizes of the labelled set: the initial one, and a step more each time, up to the last.

    Only the sums are rounded, so ten steps of 1% are a tenth of any pool.

    Args:
        initial: labelled at first.
        step: labelled at a time.
        until: labelled at most.
        pool: all the training images.

    Raises:
        BenchmarkError: they allow for no step, or want more images than there are.
    """
    first, more, last = initial.of(pool), step.of(pool), until.of(pool)
    if last > pool:
        raise BenchmarkError(f"--until {until.text} is more than the {pool} images of the pool.")
    if round(first) < 1 or more < 1:
        raise BenchmarkError(
            f"--initial {initial.text} and --step {step.text} must each come to at least one of "
            f"the {pool} images of the pool."
        )
    if first > last:
        raise BenchmarkError(f"--initial {initial.text} is more than --until {until.text}.")
    return tuple(round(first + more * k) for k in range(int((last - first) // more) + 1))


def draw_initial_set(counts: Tensor, size: int, seed: int, left_out: int = 0) -> list[int]:
    """Rows of the pool, drawn at random.

    A larger set that is drawn with the same seed begins with a smaller one.

    Args:
        counts: how often each class occurs in each image's target, (N, C).
        size: how many images.
        seed: of the draw.
        left_out: so many classes occur in none of the images (the biased initial pool of the
            paper's section 9): drawn at random too, among those without which enough remain.

    Raises:
        BenchmarkError: so many classes cannot be left out.
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
            f"--bias {left_out} cannot be: an initial set of {size} images can do without "
            f"{missing} of the {counts.shape[1]} classes, which were tried in a random order."
        )
    return [int(row) for row in order[allowed[order]][:size]]
