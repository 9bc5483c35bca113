"""Tie-breaking that does not depend on the last bits of a sum, and so not on the machine."""

from __future__ import annotations

import torch
from torch import Tensor

_NOISE_BITS = 6


def round_off(values: Tensor) -> Tensor:
    """Round float32 values, all at least 0, to 18 significant bits: by at most 4e-6 of each.

    Values that differ only in the last bits, by the order of summation, become equal: ties, which
    go to the lowest index.
    """
    bits = values.contiguous().view(torch.int32) + (1 << (_NOISE_BITS - 1))
    return (bits >> _NOISE_BITS << _NOISE_BITS).view(torch.float32)


def highest(values: Tensor, count: int) -> Tensor:
    """Find the rows of the ``count`` highest values, (count,) int64; among equals the lowest."""
    if count >= len(values):
        return torch.arange(len(values), device=values.device)
    if count == 0:
        return torch.empty(0, dtype=torch.int64, device=values.device)
    threshold = values.topk(count, sorted=False).values.min()
    above = (values > threshold).nonzero()[:, 0]
    equal = (values == threshold).nonzero()[:, 0]
    return torch.cat([above, equal[: count - len(above)]])
