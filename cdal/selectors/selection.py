"""The contract of every selector: a pool and a budget in, ordered picks out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from cdal.selectors.pool import Pool

Progress = Callable[[float], None]
"""Called with the share that is done, in [0, 1]."""


class Told:
    """Progress that can be told again, so that whoever listens can cancel long computations.

    Args:
        progress: what is told; it may raise, which ends the computation.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._share = 0.0

    def __call__(self, share: float) -> None:
        """Tell a new share."""
        self._share = share
        self.tick()

    def between(self, first: float, last: float) -> Progress:
        """The progress of a part that begins and ends at these shares of the whole."""
        return lambda share: self(first + (last - first) * share)

    def tick(self) -> None:
        """Tell the last share again."""
        if self._progress is not None:
            self._progress(self._share)


Opinions = Literal["dropout", "committee"]
"""Whose opinions are compared: passes in which features drop out, or several models."""


Companion = Literal["loss-predictor", "adversary"]
"""What is trained beside a task network for a selector: its output is in the pool, too."""


class BudgetError(ValueError):
    """The budget is negative."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One picked image.

    Attributes:
        index: its row in the pool.
        score: the value that the selector maximised when picking it, in the selector's own unit.
        reason: why, as JSON data, for example ``{"nearest": 12, "classes": {"3": 0.8}}``.
    """

    index: int
    score: float
    reason: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """Picks in the order in which they should be labelled, with notes for the user.

    Attributes:
        selector: the selector's name.
        picks: distinct unlabelled images, the most informative first.
        warnings: sentences for the user.
        report: other measurements of the selector, as JSON data.
    """

    selector: str
    picks: tuple[Pick, ...]
    warnings: tuple[str, ...] = ()
    report: Mapping[str, object] = field(default_factory=dict)

    @property
    def indices(self) -> list[int]:
        """The picked rows of the pool, in order."""
        return [pick.index for pick in self.picks]


class Selector(Protocol):
    """A strategy. Its options are the fields of the dataclass that implements it."""

    name: ClassVar[str]

    def select(
        self, pool: Pool, budget: int, seed: int = 0, progress: Progress | None = None
    ) -> Selection:
        """Pick images to label.

        Args:
            pool: N images, of which ``pool.labelled`` are never picked.
            budget: how many images to pick, at least 0; all unlabelled ones if it is larger.
            seed: fixes every random choice.
            progress: called with the share done, by selectors that take long, and with the same
                share again in between. If it raises, the selection ends.

        Raises:
            BudgetError: the budget is negative.
            PoolError: the pool lacks an array that the selector needs.
        """
        ...


def picks_possible(pool: Pool, budget: int) -> int:
    """The number of images a selector picks: the budget, but at most all unlabelled images.

    Raises:
        BudgetError: the budget is negative.
    """
    if budget < 0:
        raise BudgetError(f"the budget must be at least 0, not {budget}")
    return min(budget, int((~pool.labelled).sum()))
