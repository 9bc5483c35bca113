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
SMALL_VGG_SHAPE = (4096, 512)
"""The shape of a layer that a VGG network only has with ``small_vgg``."""


@dataclass(frozen=True, slots=True)
class ClassifierEntry(Architecture):
    """A classification network: torchvision's of the same name unless ``make`` is given.

    Attributes:
        head: the name of its last linear layer, whose input are the features.
        small: adapts the network to images of side ``SMALL_IMAGE`` or less; None: it stays as it
            is.
        small_shape: the shape of a tensor that only the adapted network has.
        make: creates the network; None: torchvision does.
    """

    head: str = ""
    small: Callable[[nn.Module], None] | None = None
    small_shape: tuple[int, ...] = SMALL_STEM_SHAPE
    make: Callable[[], nn.Module] | None = None


def small_stem(resnet: nn.Module) -> None:
    """Replace the 7×7 convolution and the pooling (stride 4 in total) by a 3×3 one of stride 2.

    Stride 1, the usual choice for CIFAR-10, costs about three times as much: see docs/training.md.
    """
    resnet.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")
    resnet.maxpool = nn.Identity()


def small_vgg(vgg: nn.Module) -> None:
    """Keep the single position that remains of a small image, instead of repeating it 49 times."""
    vgg.avgpool = nn.AdaptiveAvgPool2d(1)
    first = nn.Linear(512, 4096)
    nn.init.normal_(first.weight, 0, 0.01)
    nn.init.zeros_(first.bias)
    vgg.set_submodule("classifier.0", first)


CLASSIFIERS: Mapping[str, ClassifierEntry] = {
    "mobilenet_v3_small": ClassifierEntry("mobilenet_v3_small", head="classifier.3"),
    "mobilenet_v3_large": ClassifierEntry("mobilenet_v3_large", head="classifier.3"),
    "resnet18": ClassifierEntry("resnet18", head="fc", small=small_stem),
    "resnet50": ClassifierEntry("resnet50", head="fc", small=small_stem),
    # Without batch normalisation, it learns nothing at the default rate.
    "vgg16": ClassifierEntry("vgg16", head="classifier.6", learning_rate=2e-4),
    "vgg16_bn": ClassifierEntry(
        "vgg16_bn", head="classifier.6", small=small_vgg, small_shape=SMALL_VGG_SHAPE
    ),
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
        wanted = any(tensor.shape == entry.small_shape for tensor in weights.values())
    if small is not None and wanted:
        small(module)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # mobilenet_v3's own 0.01 suits 600 epochs of ImageNet: after the few hundred steps on
            # a small set, the running statistics would still be half their initial values.
            layer.momentum = 0.1
    return module
