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

PENALTY_OF_EACH = 1.0
"""The same where classes are independent: with ``PENALTY``, their probabilities are too extreme."""

FEW = 100
"""Below this many images the penalty rises as their number falls."""

ITERATIONS = 100

BIAS_SHARE = 0.001
"""The penalty of a bias where classes are independent, as a share of that of a weight: enough to
keep the bias of a class that no image has finite."""


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

    Biases are penalised as the weights are: otherwise, rare classes are hardly ever predicted.

    Args:
        features: (N, D) float32.
        labels: (N,) int64, or the share of each class, (N, C) float32.
        class_weights: how much an image of each class counts, (C,); 0 for classes without images.
        penalty: of standardised features; None: the usual one, or more where images are few.
        stop: asked before each evaluation of the loss.

    Raises:
        ModelError: the features are not all finite.
        Stopped: ``stop`` said so.
    """
    shares = labels if labels.ndim == 2 else functional.one_hot(labels, len(class_weights)).float()
    image_weights = shares @ class_weights
    image_weights = image_weights / image_weights.sum()

    def loss(logits: Tensor) -> Tensor:
        each = functional.cross_entropy(logits, labels, reduction="none")
        return (each * image_weights).sum()

    if penalty is None:
        penalty = _with_few(PENALTY, len(features))
    return minimise(features, len(class_weights), loss, penalty, penalty, stop)


def fit_independent(
    features: Tensor,
    targets: Tensor,
    penalty: float | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Logistic:
    """Learn from features whether an image has each class, a logistic regression for each.

    The loss is the binary cross entropy, a mean over the images and a sum over the classes. How
    frequent a class is, is hardly penalised: rare ones must be improbable.

    Args:
        features: (N, D) float32.
        targets: whether an image has each class, from 0 to 1, (N, C) float32.
        penalty: as in ``fit_logistic``.
        stop: asked before each evaluation of the loss.

    Raises:
        ModelError: the features are not all finite.
        Stopped: ``stop`` said so.
    """

    def loss(logits: Tensor) -> Tensor:
        each = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return each.mean(0).sum()

    if penalty is None:
        penalty = _with_few(PENALTY_OF_EACH, len(features))
    return minimise(features, targets.shape[1], loss, penalty, BIAS_SHARE * penalty, stop)


def _with_few(penalty: float, images: int) -> float:
    return penalty * max(1.0, FEW / images)


def minimise(
    features: Tensor,
    classes: int,
    loss_of: Callable[[Tensor], Tensor],
    penalty: float,
    bias_penalty: float,
    stop: Callable[[], bool] = lambda: False,
) -> Logistic:
    """Find the weights and biases of the least loss, as both functions above do.

    Args:
        features: (N, D) float32.
        classes: C.
        loss_of: of logits (N, C), differentiable.
        penalty: of half the squared weights of standardised features.
        bias_penalty: of half the squared biases.
        stop: asked before each evaluation of the loss.

    Raises:
        ModelError: the features are not all finite.
        Stopped: ``stop`` said so.
    """
    if not features.isfinite().all():
        raise ModelError("The backbone's features are not all finite numbers.")
    mean = features.mean(0)
    std = features.std(0, correction=0).clamp(min=1e-3)
    x = functional.pad((features - mean) / std, (0, 1), value=1.0)
    penalties = torch.full((x.shape[1],), penalty)
    penalties[-1] = bias_penalty
    solution = torch.zeros(classes, x.shape[1], requires_grad=True)
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
        loss = loss_of(x @ solution.T)
        total = loss + (penalties / 2 * solution.square()).sum()
        torch.autograd.backward(total)
        losses.append(float(loss.detach()))
        return float(total.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    found = solution.detach()
    weight = found[:, :-1] / std
    return Logistic(weight, found[:, -1] - weight @ mean, losses[-1])
