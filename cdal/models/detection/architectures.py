"""The detectors that can be chosen by name: a new one of a known family is one entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from cdal.models import pretrained
from cdal.models.architecture import Architecture
from cdal.models.detection.family import AsPrepared, Family, Model, in_float32
from cdal.models.detection.pyramid import FasterRcnn, RetinaNet
from cdal.models.detection.ssd import Ssd, SsdLite
from cdal.models.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorEntry(Architecture):
    """A detector of torchvision.

    Attributes:
        family: what kind of detector it is.
    """

    family: Family


DETECTORS: Mapping[str, DetectorEntry] = {
    "ssdlite320_mobilenet_v3_large": DetectorEntry(backbone="mobilenet_v3_large", family=SsdLite()),
    # Without batch normalisation it diverges at the others' rate.
    "ssd300_vgg16": DetectorEntry(
        backbone="vgg16", image_size=300, family=Ssd(), learning_rate=2e-4
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": DetectorEntry(
        backbone="mobilenet_v3_large", family=FasterRcnn()
    ),
    "retinanet_resnet50_fpn_v2": DetectorEntry(backbone="resnet50", family=RetinaNet()),
}


def build_detector(manifest: Manifest, weights: Mapping[str, Tensor] | None = None) -> Model:
    """Build a detector for images as ours are prepared, with random weights.

    Args:
        manifest: what to build.
        weights: see ``TaskNetwork.build``.
    """
    family = DETECTORS[manifest.architecture].family
    model = family.build(manifest, weights)
    model.transform = AsPrepared()
    in_float32(model.backbone, *family.heads(model))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1  # as for classification
    return model


def adopt(model: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Take the weights of the network that classifies, or those of a whole detector.

    Raises:
        ModelError: they fit neither.
    """
    family = DETECTORS[name].family
    own = model.state_dict()
    fitting = {}
    for theirs, tensor in weights.items():
        ours = family.backbone_name(theirs)
        if ours in own and own[ours].shape == tensor.shape:
            fitting[ours] = tensor
    # Heads are many small tensors, so half of the detector's own would be too much to ask.
    if 2 * len(fitting) >= len(weights):
        model.load_state_dict({**own, **fitting})
    else:
        pretrained.adopt(model, weights, name)
