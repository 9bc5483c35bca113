"""Multinomial logistic regression with an L2 penalty, as a head on frozen features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import LBFGS

from cdal.models.errors import ModelError, Stopped

PENALTY = 0.1
"""The weight of half the squared norm beside a mean cross entropy. Accuracy hardly depends on it;
the probabilities do, and with this one they are calibrated: see docs/training.md."""

FEW = 100
"""Below this many images the penalty rises as their number falls."""

ITERATIONS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """Logits of D features are ``features @ weight.T + bias``.

    Attributes:
        weight: (C, D) float32.
        bias: (C,) float32.
        loss: the mean cross entropy of the images that it learnt from, in nats.
    """

    weight: Tensor
    bias: Tensor
    loss: float


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    class_weights: Tensor,
    penalty: float | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Logistic:
    """Learn classes from features, which are standardised first, by L-BFGS from zero.

    Args:
        features: (N, D) float32.
        labels: (N,) int64, or the share of each class, (N, C) float32.
        class_weights: how much an image of each class counts, (C,); 0 for classes without images.
        penalty: of standardised features; None: ``PENALTY``, or more where images are few.
        stop: asked before each evaluation of the loss.

    Raises:
        ModelError: the features are not all finite.
        Stopped: ``stop`` said so.
    """
    if not features.isfinite().all():
        raise ModelError("The backbone's features are not all finite numbers.")
    if penalty is None:
        penalty = PENALTY * max(1.0, FEW / len(features))
    mean = features.mean(0)
    std = features.std(0, correction=0).clamp(min=1e-3)
    x = functional.pad((features - mean) / std, (0, 1), value=1.0)
    shares = labels if labels.ndim == 2 else functional.one_hot(labels, len(class_weights)).float()
    image_weights = shares @ class_weights
    image_weights = image_weights / image_weights.sum()
    solution = torch.zeros(len(class_weights), x.shape[1], requires_grad=True)
    optimiser = LBFGS(
        [solution],
        max_iter=ITERATIONS,
        tolerance_grad=1e-5,
        tolerance_change=1e-8,
        line_search_fn="strong_wolfe",
    )
    losses: list[float] = []

    def closure() -> float:
        if stop():
            raise Stopped
        optimiser.zero_grad()
        each = functional.cross_entropy(x @ solution.T, labels, reduction="none")
        loss = (each * image_weights).sum()
        total = loss + penalty / 2 * solution.square().sum()
        torch.autograd.backward(total)
        losses.append(float(loss.detach()))
        return float(total.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    found = solution.detach()
    weight = found[:, :-1] / std
    return Logistic(weight, found[:, -1] - weight @ mean, losses[-1])
