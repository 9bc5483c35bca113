"""EfficientNet-Lite0, whose ImageNet weights are installed, with all of its weights learning.

Its frozen counterpart is ``timm:tf_efficientnet_lite0``; see backbone.py.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.ssdlite import _extra_block, _normal_init
from torchvision.models.segmentation import LRASPP

from cdal.models.backbone_weights import EMBEDDED

LOW, MIDDLE, HIGH = 2, 3, 4
"""Timm's indices of the maps at strides 8 and 16, and of the deepest ones."""


def efficientnet_lite0() -> nn.Module:
    """Timm's classifier with random weights; its last layer is ``classifier``."""
    import timm  # slow to import, and few networks need it

    module: nn.Module = timm.create_model(EMBEDDED)
    return module


class _TwoMaps(nn.Module):
    """Maps at stride 8 and, with dilated convolutions at the end, at stride 16."""

    def __init__(self) -> None:
        super().__init__()
        import timm

        self.layers: Any = timm.create_model(
            EMBEDDED, features_only=True, output_stride=16, out_indices=(LOW, HIGH)
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        low, high = self.layers(images)
        return OrderedDict(low=low, high=high)


def lraspp_efficientnet_lite0(classes: int) -> nn.Module:
    """LR-ASPP (Howard et al., ICCV 2019, section 6.4) on EfficientNet-Lite0, random weights."""
    backbone = _TwoMaps()
    low, high = backbone.layers.feature_info.channels()
    network: nn.Module = LRASPP(backbone, low, high, classes)
    return network


class SixMaps(nn.Module):
    """Maps at strides 16 and 32, and four more, each half as large as the one before it.

    They are what SSDlite looks at (Sandler et al., CVPR 2018, section 6.2); the layers of the
    last four are torchvision's.
    """

    def __init__(self) -> None:
        super().__init__()
        import timm

        create: Any = timm.create_model  # its networks have no declared types
        self.layers = create(EMBEDDED, features_only=True, out_indices=(MIDDLE, HIGH))
        norm = partial(nn.BatchNorm2d, eps=0.001)
        sizes = (self.layers.feature_info.channels()[-1], 512, 256, 256, 128)
        self.extra = nn.ModuleList(
            _extra_block(before, after, norm) for before, after in pairwise(sizes)
        )
        _normal_init(self.extra)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.layers(images)
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        return OrderedDict((str(number), each) for number, each in enumerate(maps))
