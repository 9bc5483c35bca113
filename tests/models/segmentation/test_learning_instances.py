"""Mask R-CNN, small enough for a CPU, learns to tell touching objects apart from random weights.

It is compared with a head, whose class maps a distance transform divides, and with the true class
maps, divided likewise. It prints the mask mAPs of all three:

    make endurance ARGS="tests/models/segmentation/test_learning_instances.py -s"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
import torch
from support.annotated import config_of
from support.touching import Pairs, make_mask_rcnn_small
from torch import Tensor

from cdal.backend.annotations.labeling_config import served_control
from cdal.backend.annotations.parts import parts_of
from cdal.backend.settings import ProjectSettings
from cdal.models import BACKGROUND, Recipe, Segmentation, TaskNetwork, fit, make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.detection.metrics import PrecisionMeter, mean_over_classes
from cdal.models.detection.pyramid import FASTER_RCNN
from cdal.models.segmentation.architectures import MASK_RCNN
from cdal.models.segmentation.mask_rcnn import objects_in

LABELS = ("disc", "square")
CLASSES = (*LABELS, BACKGROUND)
SIDE = 96
HEAD_SIDE = 2 * SIDE
"""A head sees places of 8×8 pixels, so the images are enlarged for it, as a project's are."""
LEARNT, NEW = Pairs(32, SIDE), Pairs(16, SIDE, seed=1)
ENOUGH_BOXES = {
    "box_batch_size_per_image": 32,
    "rpn_post_nms_top_n_train": 60,
    "rpn_post_nms_top_n_test": 40,
}


@pytest.mark.endurance
@pytest.mark.timeout(3 * 3600)
def test_touching_objects_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = mask_rcnn(monkeypatch).evaluate(NEW).values
    true = divided(Segmentation(target[0].byte(), torch.ones(1, 1)) for _, target in NEW.examples)
    of_head = divided(head_maps())
    for what, values in (("Mask R-CNN", metrics), ("head", of_head), ("true maps", true)):
        print(what, {name: round(value, 3) for name, value in values.items()})
    # A pair that is found as one object has an intersection over union of 0.5 with each of its two,
    # and so counts in one of the ten thresholds at most.
    assert metrics["mask_map"] > 0.5
    assert metrics["mask_map_50"] > 0.8
    assert metrics["miou"] > 0.8
    # Two squares have no neck between them.
    assert metrics["mask_map"] > of_head["mask_map"]


def mask_rcnn(patch: pytest.MonkeyPatch) -> TaskNetwork:
    """A small Mask R-CNN that has learnt from some pairs."""
    make_mask_rcnn_small(patch)
    patch.setattr("cdal.models.detection.pyramid.MAX_BOXES", 8)
    for name, value in ENOUGH_BOXES.items():
        patch.setitem(FASTER_RCNN, name, value)  # type: ignore[arg-type]
    torch.manual_seed(0)
    network = make_network("segmentation", MASK_RCNN, CLASSES, SIDE, pretrained=False)
    fit(network, LEARNT, None, Recipe(epochs=40))
    return network


def head_maps() -> Iterable[Segmentation]:
    """What a head that has learnt from the same pairs finds in the new ones."""
    torch.manual_seed(0)
    network = make_network("segmentation", DEFAULT_BACKBONE, CLASSES, HEAD_SIDE)
    fit(network, [(image, target[0].byte()) for image, target in LEARNT.examples], None, Recipe())
    for image, _ in NEW.examples:
        (found,) = network.predict(network.prepare(image)[None]).findings()
        assert isinstance(found, Segmentation)
        yield found


def divided(maps: Iterable[Segmentation]) -> Mapping[str, float]:
    """The mask mAP of class maps of the new pairs that a distance transform divides."""
    control = served_control(config_of("BrushLabels", LABELS))
    settings = ProjectSettings(split_regions="touching")
    meter = PrecisionMeter(len(CLASSES), of_masks=True)
    for found, (_, target) in zip(maps, NEW.examples, strict=True):
        parts = list(parts_of(found, control, CLASSES, settings))
        masks = torch.zeros((len(parts), *found.labels.shape), dtype=torch.bool)
        for mask, part in zip(masks, parts, strict=True):
            mask[part.window] = torch.from_numpy(part.mask > 0)
        said: dict[str, Tensor] = {
            "masks": masks,
            "labels": torch.tensor([part.value for part in parts], dtype=torch.int64),
            "scores": torch.tensor([part.confidence for part in parts]),
        }
        enlarged = found.labels.shape[0] // SIDE
        there = objects_in(target.repeat_interleave(enlarged, 1).repeat_interleave(enlarged, 2))
        meter.update_masks([said], [{"masks": there["masks"], "labels": there["labels"]}])
    precision = meter.compute()
    return {
        "mask_map_50": mean_over_classes(precision.at_50),
        "mask_map": mean_over_classes(precision.at_all),
    }
