"""Multi-label classification on a frozen backbone: a logistic regression for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cdal.models.classification.logistic import fit_independent
from cdal.models.classification.pooled import PooledHead
from cdal.models.features import ImageFeatures
from cdal.models.head import Tell
from cdal.models.multilabel.network import MultilabelNetwork, MultilabelPrediction
from cdal.models.predictions import Prediction
from cdal.models.recipe import Plan, Recipe


class MultilabelHead(PooledHead, MultilabelNetwork):
    """A linear layer that logistic regressions fit to the pooled features of labelled images."""

    def predict(self, batch: Tensor) -> Prediction:
        """The probability of each class for prepared images, (B, 3, S, S) uint8."""
        return self.judge(self.features(batch))

    def judge(self, features: Sequence[ImageFeatures]) -> MultilabelPrediction:
        rows, logits = self._logits(features)
        return MultilabelPrediction(regions=logits.sigmoid(), features=rows)

    def learn(
        self,
        features: Sequence[ImageFeatures],
        targets: Sequence[Tensor],
        recipe: Recipe,  # noqa: ARG002 — every class counts by its images, for calibration
        plan: Plan,  # noqa: ARG002
        tell: Tell,
        stop: Callable[[], bool],
    ) -> list[float]:
        """A logistic regression for each class."""
        found = fit_independent(self.vectors(features), torch.stack(list(targets)), stop=stop)
        self.module.load_state_dict({"weight": found.weight, "bias": found.bias})
        tell(1, found.loss)
        return [found.loss]
