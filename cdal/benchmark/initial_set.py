"""The images that are labelled before any selector is asked."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cdal.benchmark.errors import BenchmarkError


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
