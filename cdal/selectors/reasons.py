"""Why an image was picked, as JSON data that a person can be shown."""

from __future__ import annotations

from torch import Tensor

_CLASSES = 5


def class_shares(parts: Tensor) -> list[dict[str, float]]:
    """Name the classes that made each score, the largest five first, with their shares of it.

    Args:
        parts: what each class contributed, (A, C), each at least 0.

    Returns:
        For each of the A scores ``{"3": 0.8, …}``; empty where the score is 0.
    """
    totals = parts.sum(1, keepdim=True)
    shares, classes = (parts / totals.where(totals > 0, 1)).sort(
        stable=True, dim=1, descending=True
    )
    return [
        {str(c): share for c, share in zip(row, values, strict=True) if share > 0}
        for row, values in zip(
            classes[:, :_CLASSES].tolist(), shares[:, :_CLASSES].tolist(), strict=True
        )
    ]
