"""Class mixtures without those of absent classes, as sparse tensors.

With 80 classes of which an image has five, its dense mixtures are sixteen times as large. A sparse
tensor has the classes in its two sparse dimensions, image and class, and keeps the probability
vectors whole.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sparse_mixtures(vectors: Tensor, present: Tensor) -> Tensor:
    """Make mixtures (N, R, C), sparse in the first two dimensions, without copying the vectors.

    Args:
        vectors: those of the present classes, image by image and class by class, (P, C) float32.
        present: which of them exist, (N, R) bool, P of them.
    """
    places = present.nonzero().T.contiguous()
    shape = (*present.shape, vectors.shape[1])
    return torch.sparse_coo_tensor(
        places, vectors, shape, is_coalesced=True, check_invariants=False
    )


def mixture_vectors(mixtures: Tensor, present: Tensor) -> Tensor:
    """The mixtures that exist, image by image and class by class, (P, C).

    Args:
        mixtures: dense or sparse, (N, R, C).
        present: which of them exist, (N, R) bool.
    """
    return mixtures.values() if mixtures.is_sparse else mixtures[present]


def mixture_rows(mixtures: Tensor, rows: Tensor | slice) -> Tensor:
    """The mixtures of some images, dense, (A, R, C).

    Args:
        mixtures: dense or sparse, (N, R, C).
        rows: indices, (A,) int64, or a slice without a step.
    """
    if not mixtures.is_sparse:
        return mixtures.index_select(0, rows) if isinstance(rows, Tensor) else mixtures[rows]
    images, classes = mixtures.indices()
    if isinstance(rows, slice):
        rows = torch.arange(*rows.indices(len(mixtures)), device=images.device)
    first = torch.searchsorted(images, rows)
    count = torch.searchsorted(images, rows, right=True) - first
    # Of each row in turn, the places of its vectors.
    place = (first - count.cumsum(0) + count).repeat_interleave(count)
    place += torch.arange(len(place), device=place.device)
    dense = mixtures.values().new_zeros((len(rows), *mixtures.shape[1:]))
    row = torch.arange(len(rows), device=place.device).repeat_interleave(count)
    dense[row, classes[place]] = mixtures.values()[place]
    return dense
