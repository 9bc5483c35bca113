"""The table of segmentation networks: each one is a single entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torchvision.models
from torch import nn

from cdal.models.architecture import Architecture
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.efficientnet import lraspp_efficientnet_lite0
from cdal.models.segmentation.drn import drn_d_22
from cdal.models.segmentation.fcn8s import Fcn8s
from cdal.models.segmentation.icnet import IcNet

MASK_RCNN = "maskrcnn_resnet50_fpn"

LRASPP_HEADS = ("classifier.low_classifier", "classifier.high_classifier")


@dataclass(frozen=True, slots=True)
class SegmenterEntry(Architecture):
    """A segmentation network: torchvision's of the same name unless ``make`` is given.

    The network has two parts: ``backbone`` turns images into a dict of feature maps, the deepest
    last; ``classifier`` turns the deepest map into logits, or the whole dict if the network is
    LR-ASPP or has an attribute ``takes_all_maps``.

    Attributes:
        heads: the names of the layers with one output per class.
        make: creates the network for a number of classes; None: torchvision does.
        finds_objects: whether it is a Mask R-CNN, which tells objects of a class apart; see
            instances.py. The other attributes do not apply to it.
    """

    heads: tuple[str, ...] = ("classifier.4",)
    make: Callable[[int], nn.Module] | None = None
    finds_objects: bool = False


SEGMENTERS: Mapping[str, SegmenterEntry] = {
    "lraspp_mobilenet_v3_large": SegmenterEntry("mobilenet_v3_large", heads=LRASPP_HEADS),
    "deeplabv3_mobilenet_v3_large": SegmenterEntry("mobilenet_v3_large"),
    "deeplabv3_resnet50": SegmenterEntry("resnet50"),
    "deeplabv3_resnet101": SegmenterEntry("resnet101"),
    "fcn_resnet50": SegmenterEntry("resnet50"),
    "drn_d_22": SegmenterEntry(heads=("classifier",), make=drn_d_22),
    "fcn8s_quarter": SegmenterEntry(
        heads=tuple(f"classifier.scores.{stride}" for stride in (8, 16, 32)), make=Fcn8s
    ),
    "icnet": SegmenterEntry(heads=("classifier.score",), make=IcNet),
    "lraspp_efficientnet_lite0": SegmenterEntry(
        DEFAULT_BACKBONE, heads=LRASPP_HEADS, make=lraspp_efficientnet_lite0
    ),
    MASK_RCNN: SegmenterEntry("resnet50", heads=(), finds_objects=True),
}


def build_segmenter(name: str, classes: int) -> nn.Module:
    """Build the network of this name, randomly initialised as its authors do."""
    make = SEGMENTERS[name].make
    if make is not None:
        return make(classes)
    module: nn.Module = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=classes
    )
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # As for classification: mobilenet_v3's own 0.01 suits 600 epochs of ImageNet.
            layer.momentum = 0.1
    return module
