"""Learning Loss (Yoo and Kweon, CVPR 2019): the images with the highest predicted loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cdal.selectors.pool import Pool
from cdal.selectors.ranking import RankingSelector
from cdal.selectors.selection import Companion


@dataclass(frozen=True, slots=True)
class LearningLoss(RankingSelector):
    """The images whose loss, as a module beside the task network predicts it, is highest.

    "Learning Loss for Active Learning", section 3. The module and its training are
    ``cdal.models.learning_loss``; its output is the pool's ``predicted_losses``, which has no unit,
    because the module learns to rank. The score is what it has above the pool's lowest. The paper
    picks from a random subset of 10,000 images (section 4.1), and this from the whole pool.

    Attributes:
        weight: λ of equation 3, of the module's loss against the network's.
    """

    name: ClassVar[str] = "learning-loss"
    companion: ClassVar[Companion] = "loss-predictor"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"weight must be positive, not {self.weight}")

    def scores(self, pool: Pool) -> tuple[Tensor, Tensor]:
        losses = pool.need("predicted_losses", self.name)
        # Ranking rounds values of at least 0.
        least = losses.min() if len(losses) else 0.0
        return losses.double() - least, pool.need("probabilities", self.name)
