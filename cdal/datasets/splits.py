"""Which examples are to measure with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from cdal.datasets.image_set import Example

SPLITS = ("train", "val", "test")
TEST_SHARE = 0.25
"""Of the examples of a source that has no split for measuring."""


def split_to_test_with(splits: Sequence[str | None]) -> str | None:
    """The split to measure with: "test", "val" where there is none, or None without either."""
    return next((name for name in ("test", "val") if name in splits), None)


def hold_back(examples: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """The examples, by name; a random share of them are test examples, if none is yet."""
    ordered = sorted(examples, key=lambda example: example.name)
    if any(example.is_test for example in ordered):
        return tuple(ordered)
    count = round(len(ordered) * TEST_SHARE)
    test = set(Random(seed).sample(range(len(ordered)), count))  # noqa: S311 — no secret
    return tuple(replace(example, is_test=row in test) for row, example in enumerate(ordered))
