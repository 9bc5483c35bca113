"""CDAL-CS (Agarwal et al., ECCV 2020, Algorithm 1): k-center greedy on contextual diversity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from cdal.selectors.diversity import Missing, class_shares
from cdal.selectors.k_center import k_center_greedy
from cdal.selectors.pool import Pool
from cdal.selectors.selection import Pick, Progress, Selection, Told, picks_possible
from cdal.selectors.summed import diversity_of

_TIED_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class CDALCS:
    """Each pick is the image farthest, by Eq. 2, from its nearest labelled or picked image.

    The score is that distance, in nats; the reason names the nearest image and the classes that
    contributed most; those of the pools beside it are counted on. If nothing is labelled, the first
    pick is random and its score 0.

    Attributes:
        missing: how to treat a class that only one of two images has.
    """

    name: ClassVar[str] = "cdal-cs"
    reads: ClassVar[frozenset[str]] = frozenset({"mixtures"})
    quick: ClassVar[bool] = True
    missing: Missing = "uniform"

    def select(
        self, pool: Pool, budget: int, seed: int = 0, progress: Progress | None = None
    ) -> Selection:
        count = picks_possible(pool, budget)
        if count == 0:
            return Selection(self.name, ())
        told = Told(progress)
        embedding = diversity_of(pool, self.missing, told.tick)
        found = k_center_greedy(embedding, pool.labelled, count, seed, told)
        # A random first pick is its own nearest image: distance 0, no class.
        near = [
            pick if near is None else near
            for pick, near in zip(found.picks, found.nearest, strict=True)
        ]
        rows, cols = torch.tensor([found.picks, near], device=pool.device)
        parts = embedding.by_class(rows, cols)
        picks = tuple(
            Pick(index, score, {"nearest": near, "classes": classes})
            for index, near, score, classes in zip(
                found.picks, found.nearest, parts.sum(1).tolist(), class_shares(parts), strict=True
            )
        )
        return Selection(self.name, picks, _warnings(found.tied_at_zero, len(pool.unlabelled)))


def _warnings(tied: int, unlabelled: int) -> tuple[str, ...]:
    share = tied / unlabelled
    if share <= _TIED_SHARE:
        return ()
    return (
        f"At least {share:.0%} of the unlabelled images are at distance 0 from a labelled or "
        "picked one, so their order is arbitrary; missing=uniform distinguishes more of them than "
        "missing=skip.",
    )
