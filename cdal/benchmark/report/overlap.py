"""How many of their picks selectors have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cdal.benchmark.report.record import Record, Run
from cdal.benchmark.report.statistics import jaccard


@dataclass(frozen=True, slots=True)
class Overlap:
    """The overlap of every two selectors, at every budget after the first.

    Attributes:
        selectors: those that picked anything.
        pairs: (selector, selector, labels) to the Jaccard index of what the two had picked by
            then, without the initial set; mean over the seeds that both have.
    """

    selectors: tuple[str, ...]
    pairs: Mapping[tuple[str, str, int], float]

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets with an overlap, ascending."""
        return tuple(sorted({labelled for _, _, labelled in self.pairs}))

    def at(self, first: str, second: str, labelled: int) -> float | None:
        """The overlap of two selectors, in either order."""
        if first == second:
            return 1.0
        found = self.pairs.get((first, second, labelled))
        return self.pairs.get((second, first, labelled)) if found is None else found


def overlap(record: Record) -> Overlap:
    """Compare what the selectors of a benchmark picked."""
    picks = {
        (run.selector, run.seed, labelled): names
        for run in record.runs
        for labelled, names in _picked_until(run).items()
    }
    budgets = sorted({labelled for _, _, labelled in picks})
    selectors = tuple(
        name for name in record.selectors if any(selector == name for selector, _, _ in picks)
    )
    pairs = {}
    for first, second in combinations(selectors, 2):
        seeds = sorted(record.of(first).keys() & record.of(second).keys())
        for labelled in budgets:
            shares = [
                jaccard(picks[first, seed, labelled], picks[second, seed, labelled])
                for seed in seeds
                if (first, seed, labelled) in picks and (second, seed, labelled) in picks
            ]
            known = [share for share in shares if share is not None]
            if known:
                pairs[first, second, labelled] = float(np.mean(known))
    return Overlap(selectors, pairs)


def _picked_until(run: Run) -> dict[int, set[str]]:
    """What the run had picked by each number of labels after the first."""
    found: dict[int, set[str]] = {}
    picked: set[str] = set()
    for step in run.steps[1:]:
        picked = picked | set(step.picked)
        found[step.labelled] = picked
    return found
