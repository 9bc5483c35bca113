"""Which class mixtures are made of what a model predicts, for benchmark and backend."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cdal.models import DetectionPrediction, MultilabelPrediction, Prediction
from cdal.models.detection.regions import MIN_CONFIDENCE
from cdal.selectors import (
    ClassMixtures,
    Region,
    RegionMeans,
    Weights,
    means_of_independent,
    means_of_regions,
    mixtures_of_boxes,
    mixtures_of_independent,
    mixtures_of_logits,
    mixtures_of_vectors,
)


@dataclass(frozen=True, slots=True)
class MixtureKind:
    """Which class mixtures to make: the choices that Eq. 1 of CDAL (ECCV 2020) leaves open.

    Attributes:
        region: one mixture per pseudo-label, or one per image.
        weights: of the regions.
        classes: only regions of these pseudo-labels count; None for all.
        confidence: minimum confidence of a box that is a region.
        background: whether background is a class in a box's vector, the last one.
    """

    region: Region
    weights: Weights = "entropy"
    classes: tuple[int, ...] | None = None
    confidence: float = MIN_CONFIDENCE
    background: bool = False

    def mixtures(self, predicted: Prediction) -> ClassMixtures:
        """Compute the mixtures of a batch of images."""
        regions = predicted.regions
        if isinstance(predicted, MultilabelPrediction):
            return mixtures_of_independent(predicted.probabilities, self.classes)
        if isinstance(predicted, DetectionPrediction):
            regions = predicted.detected.candidates.regions(self.confidence, self.background)
        if not isinstance(regions, torch.Tensor):
            return mixtures_of_boxes(regions, self.weights, self.region, self.classes)
        if regions.ndim == 2:
            return mixtures_of_vectors(regions, self.weights, self.region, self.classes)
        return mixtures_of_logits(regions, self.weights, self.region, self.classes)


def means_of(predicted: Prediction) -> RegionMeans:
    """The means over the regions of each image of a batch."""
    if isinstance(predicted, MultilabelPrediction):
        return means_of_independent(predicted.probabilities)
    return means_of_regions(predicted.regions)
