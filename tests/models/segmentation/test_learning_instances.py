"""Mask R-CNN learns to tell touching objects apart, from random weights."""

from __future__ import annotations

import pytest
from support.touching import Pairs

from cdal.models import BACKGROUND, Recipe, fit, make_network
from cdal.models.segmentation.architectures import MASK_RCNN

CLASSES = ("disc", "square", BACKGROUND)


@pytest.mark.endurance
def test_touching_objects_are_told_apart() -> None:
    network = make_network("segmentation", MASK_RCNN, CLASSES, 96, pretrained=False)
    fit(network, Pairs(48, 96), None, Recipe(epochs=25))
    metrics = network.evaluate(Pairs(16, 96, seed=1))
    assert metrics.values["mask_map_50"] > 0.6
    assert metrics.values["miou"] > 0.6
