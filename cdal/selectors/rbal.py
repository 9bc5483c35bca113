"""RBAL (Kasarla et al., WACV 2019): the most uncertain regions of every image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from cdal.selectors.pool import Pool
from cdal.selectors.selection import Pick, Progress, Selection, picks_possible
from cdal.selectors.ties import round_off
from cdal.selectors.uncertainty import UNCERTAINTIES


@dataclass(frozen=True, slots=True)
class Rbal:
    """The regions with the highest mean entropy, the same number from every image.

    "Region-based active learning for efficient labeling in semantic segmentation", as CDAL (ECCV
    2020, supplement, section 7) describes it: a share of the pixels of every image is labelled,
    chosen by region. First come the most uncertain regions of all images, then the second of each,
    and so on. Departures: regions are the cells of a grid instead of superpixels, and the score is
    the entropy alone. It is in bits; the reason has the region's place within its image:
    ``{"place": 1}``.
    """

    name: ClassVar[str] = "rbal"
    of_regions: ClassVar[bool] = True

    def select(
        self,
        pool: Pool,
        budget: int,
        seed: int = 0,  # noqa: ARG002 (nothing is random here)
        progress: Progress | None = None,
    ) -> Selection:
        known = pool.need("uncertainties", self.name)
        image = pool.need("image_of", self.name)
        count = picks_possible(pool, budget)
        rows = pool.unlabelled
        entropy = round_off(known[rows, UNCERTAINTIES.index("entropy")])
        order = entropy.sort(descending=True, stable=True).indices
        order = order[image[rows[order]].sort(stable=True).indices]  # by image, then by entropy
        _, inverse = torch.unique(image[rows[order]], return_inverse=True)
        sizes = inverse.bincount()
        starts = sizes.cumsum(0) - sizes
        place = torch.arange(len(order), device=order.device) - starts[inverse]
        best = entropy[order].sort(descending=True, stable=True).indices
        order, place = order[best], place[best]
        first = place.sort(stable=True).indices[:count]
        if progress is not None:
            progress(1.0)
        picks = (
            Pick(row, score, {"place": number + 1})
            for row, score, number in zip(
                rows[order[first]].tolist(),
                known[rows[order[first]], UNCERTAINTIES.index("entropy")].tolist(),
                place[first].tolist(),
                strict=True,
            )
        )
        return Selection(self.name, tuple(picks))
