"""Class weights: how much each class counts in a loss, by how often it occurs."""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights(counts: Tensor, power: float = 0.5) -> Tensor:
    """The weight of each class, (C,) float32: falls with a power of how often it occurs.

    By the inverse, each of three images of a rare class counts as much as a hundred of a frequent
    one, and the network comes to see little else; without weights it does not see the rare class.
    Between them lies the root; docs/training.md has figures.

    Args:
        counts: how often each class occurs, (C,).
        power: 0 weighs all alike, 1 gives every class the same say.

    Returns:
        A class that never occurs has weight 0, so that label smoothing does not teach it either;
        over all that is counted the mean weight is 1.
    """
    weights = torch.where(counts > 0, counts.double().clamp(min=1) ** -power, 0)
    return (weights * counts.sum() / (weights * counts).sum()).float()
