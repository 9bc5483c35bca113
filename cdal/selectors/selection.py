"""The contract of every selector: a pool and a budget in, ordered picks out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from cdal.selectors.pool import Pool

Progress = Callable[[float], None]
"""Told the share that is done, in [0, 1]."""


class BudgetError(ValueError):
    """A budget that no selector can meet."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One picked image.

    Attributes:
        index: its row in the pool.
        score: what the selector maximised when it picked it (its unit is the selector's own).
        reason: why, as JSON data, for example ``{"nearest": 12, "classes": {"3": 0.8}}``.
    """

    index: int
    score: float
    reason: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """Picks in the order in which they should be labelled, and what the user should know of them.

    Attributes:
        selector: the selector's name.
        picks: distinct unlabelled images, the most telling first.
        warnings: sentences for the user.
        report: what else the selector measured, as JSON data.
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
            budget: how many to pick, at least 0; all unlabelled ones where it is larger.
            seed: fixes every random choice.
            progress: told how far it is, where the selector takes long.

        Raises:
            BudgetError: the budget is negative.
            PoolError: the pool lacks what this selector needs.
        """
        ...


def picks_possible(pool: Pool, budget: int) -> int:
    """How many images a selector returns: the budget, or all unlabelled ones if they are fewer.

    Raises:
        BudgetError: the budget is negative.
    """
    if budget < 0:
        raise BudgetError(f"the budget must be at least 0, not {budget}")
    return min(budget, int((~pool.labelled).sum()))
