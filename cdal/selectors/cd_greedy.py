"""Greedy maximisation of aggregate contextual diversity (Eq. 3 of CDAL, ECCV 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cdal.selectors.diversity import DiversityEmbedding, Missing, class_shares, factors
from cdal.selectors.pool import Pool
from cdal.selectors.selection import Pick, Progress, Selection, Told, picks_possible
from cdal.selectors.summed import Diversity, diversity_of, parts_of
from cdal.selectors.ties import round_off

_ROWS = 1000


@dataclass(frozen=True, slots=True)
class CDGreedy:
    """Each pick is the image that adds most to the aggregate CD of the picks.

    This maximises CDAL-RL's main reward greedily. The first pick is the image with the largest
    summed distance to the labelled set, or a random one with score 0 if nothing is labelled; the
    labelled images play no part after that. The score is the sum of a pick's distances to the
    earlier ones, in nats; the reason names the classes that contributed most; those of the pools
    beside it are counted on.

    Attributes:
        missing: how to treat a class that only one of two images has.
    """

    name: ClassVar[str] = "cd-greedy"
    reads: ClassVar[frozenset[str]] = frozenset({"mixtures"})
    quick: ClassVar[bool] = True
    missing: Missing = "uniform"

    def select(
        self, pool: Pool, budget: int, seed: int = 0, progress: Progress | None = None
    ) -> Selection:
        count = picks_possible(pool, budget)
        if count == 0:
            return Selection(self.name, ())
        pool = pool.dense()  # it looks at every image for each pick
        told = Told(progress)
        embedding = diversity_of(pool, self.missing, told.tick)
        against = pool.labelled.nonzero()[:, 0]
        if len(against):
            first = _best(_gains(embedding, against), pool.labelled)
        else:
            first = int(np.random.default_rng(seed).integers(len(pool)))
        picks = [first]
        taken = pool.labelled.clone()
        taken[first] = True
        gains = torch.zeros(len(pool), dtype=torch.float64, device=pool.device)
        while len(picks) < count:
            newest = embedding.left(against.new_tensor(picks[-1:]))[0]
            gains += embedding.to_all(embedding.right(newest))
            picks.append(_best(gains, taken))
            taken[picks[-1]] = True
            told(len(picks) / count)
        told(1.0)
        parts = _gains_by_class(embedding, picks, against)
        described = zip(picks, parts.sum(1).tolist(), class_shares(parts), strict=True)
        return Selection(
            self.name,
            tuple(Pick(index, score, {"classes": classes}) for index, score, classes in described),
        )


def _gains(embedding: Diversity, selected: Tensor) -> Tensor:
    """Sum each image's distances to the selected ones, (N,) float64."""
    total = embedding.left(selected).sum(0, dtype=torch.float64).float()
    return embedding.to_all(embedding.right(total)).double()


def _best(gains: Tensor, taken: Tensor) -> int:
    """Find the row with the highest gain that is not taken; the lowest row among equals."""
    # The product of two identical images can come out just below 0.
    return int(round_off(gains.float().clamp(min=0)).masked_fill(taken, -1).argmax())


def _gains_by_class(embedding: Diversity, picks: Sequence[int], against: Tensor) -> Tensor:
    """Split each pick's gain by class, (B, C) float64; the first one's is against ``against``."""
    return torch.cat([_gains_by_a_model(part, picks, against) for part in parts_of(embedding)], 1)


def _gains_by_a_model(
    embedding: DiversityEmbedding, picks: Sequence[int], against: Tensor
) -> Tensor:
    labelled, earlier = _FactorSums(embedding), _FactorSums(embedding)
    for rows in torch.split(against, _ROWS):
        labelled.add(rows)
    gains: list[Tensor] = []
    for row in torch.split(against.new_tensor(picks), 1):
        gains.append((earlier if gains else labelled).gain_by_class(row))
        earlier.add(row)
    return torch.stack(gains)


class _FactorSums:
    """Sums over the selected images: Σ P, Σ log P and Σ P log P, each (R, C), and Σ 1, (R, 1)."""

    def __init__(self, embedding: DiversityEmbedding) -> None:
        self._of = embedding
        r, c = embedding.mixtures.shape[1:]
        self._p, self._log_p, self._product = embedding.mixtures.new_zeros(
            (3, r, c), dtype=torch.float64
        )
        self._images = self._p.new_zeros((r, 1))

    def add(self, rows: Tensor) -> None:
        p, log_p, counted = self._factors(rows)
        self._p += (p * counted).sum(0)
        self._log_p += (log_p * counted).sum(0)
        self._product += (p * log_p * counted).sum(0)
        self._images += counted.sum(0)

    def gain_by_class(self, row: Tensor) -> Tensor:
        """Sum ½ (P − P') (log P − log P') over the selected images P', by class, (C,)."""
        p, log_p, counted = self._factors(row)
        terms = self._images * p * log_p - p * self._log_p - log_p * self._p + self._product
        gain: Tensor = (0.5 * counted * terms)[0].clamp(min=0)
        return gain.sum(0 if len(gain) == 1 else 1)

    def _factors(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of = self._of
        p, log_p, counted = factors(of.mixtures[rows], of.present[rows], of.missing)
        return p, log_p, counted[..., None]
