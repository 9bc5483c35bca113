"""Several opinions of networks about the same regions: passes with dropout, and a committee.

For heads of classifiers, which are a single layer, see classification/stochastic.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cdal.models.detection.head import DetectionHeadPrediction
from cdal.models.detection.regions import MAX_REGIONS, MIN_CONFIDENCE
from cdal.models.devices import seeded
from cdal.models.network import TaskNetwork
from cdal.models.predictions import Prediction


def dropping_layers(network: TaskNetwork) -> list[nn.Module]:
    """The layers of a network that drop features in training."""
    kinds = (nn.Dropout, nn.Dropout2d)
    return [layer for layer in network.module.modules() if isinstance(layer, kinds)]


@contextmanager
def dropping(network: TaskNetwork, seed: int = 0) -> Iterator[None]:
    """Within the block, features drop out of a network's predictions, as in its training.

    Monte Carlo dropout (Gal and Ghahramani, ICML 2016). All other layers predict as usual.

    Args:
        network: has ``dropping_layers``.
        seed: of what drops out.
    """
    layers = dropping_layers(network)
    try:
        for layer in layers:
            layer.train()
        with seeded(seed, network.device):
            yield
    finally:
        for layer in layers:
            layer.eval()


def regions_of(opinions: Sequence[Prediction]) -> list[Tensor]:
    """What S opinions say about the K regions of each image: (K, S, C) float32.

    The image is its only region in classification. In segmentation, the regions are those of a
    prediction. In detection with a head, they are the places that are most confident on average:
    at most ``MAX_REGIONS`` from ``MIN_CONFIDENCE`` on, and always the first. Their probabilities,
    which are independent of each other, are divided by their sum.

    Args:
        opinions: predictions of the same images, by networks that have the same regions: not by
            detectors that are trained in full.
    """
    images = zip(*(_vectors(opinion) for opinion in opinions), strict=True)
    found = [torch.stack(image, 1) for image in images]
    if isinstance(opinions[0], DetectionHeadPrediction):
        return [_confident(image) for image in found]
    return found


def _vectors(opinion: Prediction) -> list[Tensor]:
    """Class vectors of the regions of each image, (K, C)."""
    if isinstance(opinion, DetectionHeadPrediction):
        return list(opinion.places)
    regions = opinion.regions
    if not isinstance(regions, Tensor):
        return list(regions)
    if regions.ndim == 2:
        return list(regions[:, None])
    return [logits.softmax(0).flatten(1).T for logits in regions]


def _confident(places: Tensor) -> Tensor:
    """The regions among the places of an image, (A, S, C), as distributions over the classes."""
    confidence = places.mean(1).amax(1)
    best = confidence.topk(min(MAX_REGIONS, len(places)))
    count = int((best.values >= MIN_CONFIDENCE).sum())
    vectors = places[best.indices[: max(1, count)]]
    return vectors / vectors.sum(2, keepdim=True).clamp(min=1e-12)
