"""Targets of images about whose class people do not agree: the share of each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def stacked(targets: Sequence[Tensor], classes: int) -> Tensor:
    """Targets of N images as one tensor.

    Args:
        targets: class indices, () int64, or shares of the classes, (C,) float32.
        classes: C.

    Returns:
        The indices, (N,) int64, if all targets are indices; otherwise the shares, (N, C) float32.
    """
    if all(target.ndim == 0 for target in targets):
        return torch.stack(list(targets))
    return torch.stack([shares(target, classes) for target in targets])


def shares(target: Tensor, classes: int) -> Tensor:
    """The share of each class in a target, (C,) float32."""
    return target if target.ndim else functional.one_hot(target, classes).float()


def largest(targets: Tensor) -> Tensor:
    """The class with the largest share of each image, (N,) int64; the first of several."""
    return targets if targets.ndim == 1 else targets.argmax(1)
