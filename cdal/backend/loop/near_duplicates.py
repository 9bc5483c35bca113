"""Near-duplicates: images so alike to the backbone that one label serves for all of them.

Frames of a video, copies at another size or quality: people should see one of them, and a model
should not be measured on one whose twin it has learnt from.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SIMILAR = 0.98
"""The cosine similarity of two images' features from which on they are near-duplicates.

A photograph at half its size is above it; different blood smears, which look much alike, are below.
"""

ROWS_AT_ONCE = 512


def originals_of(features: Tensor, known: Tensor | None = None) -> list[int | None]:
    """Of which earlier image each image is a near-duplicate.

    An image that is one is not compared with again, so that a slow change over many images does
    not make them all near-duplicates of the first.

    Args:
        features: of N images in their order, (N, D) of any floating type.
        known: of K images before all of these, (K, D).

    Returns:
        For each image the index of the first similar one among the K and the N that follow them;
        None if it is no near-duplicate.
    """
    own = functional.normalize(features.float())
    before = own[:0] if known is None else functional.normalize(known.float())
    count = len(before)
    everything = torch.cat([before, own])
    kept = torch.zeros(len(everything), dtype=torch.bool)
    kept[:count] = True
    found: list[int | None] = []
    for rows in torch.split(own, ROWS_AT_ONCE):
        similar = rows @ everything[: count + len(found) + len(rows)].T >= SIMILAR
        for row in similar:
            here = count + len(found)
            earlier = (row[:here] & kept[:here]).nonzero()
            kept[here] = not len(earlier)
            found.append(int(earlier[0]) if len(earlier) else None)
    return found
