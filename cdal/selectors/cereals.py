"""CEREALS (Mackowiak et al., BMVC 2018): the regions that tell most for what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.ranking import RankingSelector
from cdal.selectors.uncertainty import UNCERTAINTIES


@dataclass(frozen=True, slots=True)
class Cereals(RankingSelector):
    """The regions with the highest entropy per predicted cost of labelling.

    "CEREALS: Cost-Effective REgion-based Active Learning for Semantic Segmentation", section 3:
    an information map, a cost map, and the regions where the two together are best. It departs in
    the costs: the paper predicts the clicks of annotators by a network that has learnt from
    recorded clicks, which are not published for most data sets; ``costs`` are the predicted
    boundaries between classes instead. Regions lie on a grid and do not overlap; the paper's may
    lie anywhere. The score is in bits per cost.

    Attributes:
        weight: the exponent of the cost; 0 leaves it out, as in the paper's mode without costs.

    Raises:
        ValueError: ``weight`` is negative or infinite.
    """

    name: ClassVar[str] = "cereals"
    of_regions: ClassVar[bool] = True
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight must be at least 0 and finite, not {self.weight}")

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        known = pool.need("uncertainties", self.name).double()
        costs = pool.need("costs", self.name).double()
        information = known[:, UNCERTAINTIES.index("entropy")]
        return information / (1 + costs) ** self.weight, pool.need("probabilities", self.name)
