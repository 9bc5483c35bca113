"""From the class vectors of an image's regions, as predicted, to what selectors need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cdal.selectors.mixtures import (
    ClassMixtures,
    Region,
    distributions_of,
    mixtures_of_boxes,
    mixtures_of_logits,
    mixtures_of_vectors,
)
from cdal.selectors.uncertainty import uncertainties_of

Regions = Tensor | Sequence[Tensor]
"""Class vectors of the regions of N images: (N, C) probabilities if the image is the region,
(N, C, H, W) logits if pixels are, and for boxes one (K, C) tensor of probabilities per image."""

_PIXELS = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class RegionMeans:
    """Means over the regions of each of N images, on their device.

    Attributes:
        probabilities: (N, C) float32; uniform for an image without regions.
        uncertainties: (N, 3) float32, see ``UNCERTAINTIES``; 0 for an image without regions.
    """

    probabilities: Tensor
    uncertainties: Tensor


def mixtures_of_regions(regions: Regions, region: Region | None = None) -> ClassMixtures:
    """Compute Eq. 1 of a batch of images with any kind of regions.

    Args:
        regions: see ``Regions``.
        region: one mixture per pseudo-label, or one per image; None for "image" if the image is
            the region, and "class" otherwise.
    """
    if region is None:
        vectors = isinstance(regions, Tensor) and regions.ndim == 2
        region = "image" if vectors else "class"
    if not isinstance(regions, Tensor):
        return mixtures_of_boxes(regions, region=region)
    if regions.ndim == 2:
        return mixtures_of_vectors(regions, region=region)
    return mixtures_of_logits(regions, region=region)


def means_of_regions(regions: Regions) -> RegionMeans:
    """Average class probabilities and uncertainties over the regions, which count equally."""
    if not isinstance(regions, Tensor):
        return _stacked([_of_boxes(boxes) for boxes in regions])
    if regions.ndim == 2:
        return RegionMeans(regions, uncertainties_of(regions).float())
    images = max(1, _PIXELS // regions[0, 0].numel()) if len(regions) else 1
    return _stacked([_of_maps(maps) for maps in torch.split(regions, images)])


def means_of_independent(probabilities: Tensor) -> RegionMeans:
    """What selectors need of multi-label classifications, (N, C).

    The entropy is the sum over the classes, which are independent; the other two uncertainties are
    those of the least certain class. The probabilities are normalised to sum to 1.
    """
    both = torch.stack([probabilities, 1 - probabilities], -1)
    each = uncertainties_of(both)
    entropy, others = each[..., :1].sum(1), each[..., 1:].amax(1)
    positive = probabilities.clamp(min=torch.finfo(torch.float32).tiny)
    shares = positive / positive.sum(1, keepdim=True)
    return RegionMeans(shares, torch.cat([entropy, others], 1).float())


def _of_maps(logits: Tensor) -> RegionMeans:
    p = logits.float().softmax(1).flatten(2).transpose(1, 2)  # (n, pixels, C)
    return RegionMeans(p.mean(1), uncertainties_of(p).mean(1).float())


def _of_boxes(boxes: Tensor) -> RegionMeans:
    if len(boxes) == 0:
        uniform = boxes.new_full((1, boxes.shape[1]), 1 / boxes.shape[1])
        return RegionMeans(uniform, boxes.new_zeros((1, 3)))
    p = distributions_of(boxes)
    return RegionMeans(p.mean(0, keepdim=True), uncertainties_of(p).mean(0, keepdim=True).float())


def _stacked(parts: Sequence[RegionMeans]) -> RegionMeans:
    return RegionMeans(
        torch.cat([part.probabilities for part in parts]),
        torch.cat([part.uncertainties for part in parts]),
    )
