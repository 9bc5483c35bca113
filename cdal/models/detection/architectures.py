"""The table of detectors: each one of a known family is a single entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from cdal.models import pretrained
from cdal.models.architecture import Architecture
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.detection.family import AsPrepared, Family, Model, in_float32
from cdal.models.detection.pyramid import FasterRcnn, RetinaNet
from cdal.models.detection.ssd import Ssd, SsdLite, SsdLiteOnEfficientNet
from cdal.models.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorEntry(Architecture):
    """A detector of torchvision.

    Attributes:
        family: how detectors of its kind are built and run.
    """

    family: Family


DETECTORS: Mapping[str, DetectorEntry] = {
    "ssdlite320_mobilenet_v3_large": DetectorEntry(backbone="mobilenet_v3_large", family=SsdLite()),
    # Only its backbone is pretrained, so its heads need a higher rate.
    "ssdlite_efficientnet_lite0": DetectorEntry(
        backbone=DEFAULT_BACKBONE, family=SsdLiteOnEfficientNet(), fine_tuning_rate=1e-3
    ),
    # Without batch normalisation, it diverges at the default rate.
    "ssd300_vgg16": DetectorEntry(
        backbone="vgg16", image_size=300, family=Ssd(), learning_rate=2e-4
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": DetectorEntry(
        backbone="mobilenet_v3_large", family=FasterRcnn()
    ),
    "retinanet_resnet50_fpn_v2": DetectorEntry(backbone="resnet50", family=RetinaNet()),
}


def has_background(name: str) -> bool:
    """Whether a network, of whatever task, weighs background against the classes of each box."""
    return name in DETECTORS and DETECTORS[name].family.background > 0


def build_detector(manifest: Manifest, weights: Mapping[str, Tensor] | None = None) -> Model:
    """Build a randomly initialised detector for prepared images.

    Args:
        manifest: the description of the detector.
        weights: the weights that will be loaded, if any; see ``TaskNetwork.build``.
    """
    return assembled(DETECTORS[manifest.architecture].family, manifest, weights)


def assembled(family: Family, manifest: Manifest, weights: Mapping[str, Tensor] | None) -> Model:
    """A detector of a family, for prepared images; see ``build_detector``."""
    model = family.build(manifest, weights)
    model.transform = AsPrepared()
    in_float32(model.backbone, *family.heads(model))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1  # as for classification, see build_classifier
    return model


def adopt(model: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Load the weights of a detector's classification backbone, or those of a whole detector.

    Args:
        model: the detector.
        weights: weights by name.
        name: a key of ``DETECTORS``.

    Raises:
        ModelError: the weights fit neither.
    """
    adopt_weights(model, weights, name, DETECTORS[name].family)


def adopt_weights(
    model: nn.Module, weights: Mapping[str, Tensor], name: str, family: Family
) -> None:
    """Load weights into a detector of a family; see ``adopt``."""
    own = model.state_dict()
    fitting = {}
    for theirs, tensor in weights.items():
        ours = family.backbone_name(theirs)
        if ours in own and own[ours].shape == tensor.shape:
            fitting[ours] = tensor
    # The heads have many small tensors, so "half of the detector" would require too much.
    if 2 * len(fitting) >= len(weights):
        model.load_state_dict({**own, **fitting})
    else:
        pretrained.adopt(model, weights, name)
