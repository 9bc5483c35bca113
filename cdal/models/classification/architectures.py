"""The table of classification networks: each one is a single entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torchvision.models
from torch import Tensor, nn

from cdal.models.architecture import Architecture
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.efficientnet import efficientnet_lite0

SMALL_IMAGE = 63
"""Up to this side, resnet's own stem would leave fewer than 16×16 positions; see ``small_stem``."""

SMALL_STEM_SHAPE = (64, 3, 3, 3)
"""The shape of a convolution that a resnet only has with ``small_stem``."""


@dataclass(frozen=True, slots=True)
class ClassifierEntry(Architecture):
    """A classification network: torchvision's of the same name unless ``make`` is given.

    Attributes:
        head: the name of its last linear layer, whose input are the features.
        small: adapts the network to images of side ``SMALL_IMAGE`` or less; None: it stays as it
            is.
        make: creates the network; None: torchvision does.
    """

    head: str = ""
    small: Callable[[nn.Module], None] | None = None
    make: Callable[[], nn.Module] | None = None


def small_stem(resnet: nn.Module) -> None:
    """Replace the 7×7 convolution and the pooling (stride 4 in total) by a 3×3 one of stride 2.

    Stride 1, the usual choice for CIFAR-10, costs about three times as much: see docs/training.md.
    """
    resnet.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")
    resnet.maxpool = nn.Identity()


CLASSIFIERS: Mapping[str, ClassifierEntry] = {
    "mobilenet_v3_small": ClassifierEntry("mobilenet_v3_small", head="classifier.3"),
    "mobilenet_v3_large": ClassifierEntry("mobilenet_v3_large", head="classifier.3"),
    "resnet18": ClassifierEntry("resnet18", head="fc", small=small_stem),
    "resnet50": ClassifierEntry("resnet50", head="fc", small=small_stem),
    # Without batch normalisation, it learns nothing at the default rate.
    "vgg16": ClassifierEntry("vgg16", head="classifier.6", learning_rate=2e-4),
    "efficientnet_lite0": ClassifierEntry(
        DEFAULT_BACKBONE, head="classifier", make=efficientnet_lite0
    ),
}


def build_classifier(
    name: str, image_size: int, pretrained: bool, weights: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Build the network of this name, randomly initialised as its authors do.

    Args:
        name: a key of ``CLASSIFIERS``.
        image_size: the side of its images.
        pretrained: whether the network starts from pretrained weights.
        weights: the weights that will be loaded, if any; the stem is the one they belong to.
    """
    entry = CLASSIFIERS[name]
    module = entry.make() if entry.make else torchvision.models.get_model(name, weights=None)
    small = entry.small
    if weights is None:
        wanted = image_size <= SMALL_IMAGE and not pretrained
    else:
        wanted = any(tensor.shape == SMALL_STEM_SHAPE for tensor in weights.values())
    if small is not None and wanted:
        small(module)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # mobilenet_v3's own 0.01 suits 600 epochs of ImageNet: after the few hundred steps on
            # a small set, the running statistics would still be half their initial values.
            layer.momentum = 0.1
    return module
