"""EfficientNet-Lite0, whose ImageNet weights are installed, with all of its weights learning.

Its frozen counterpart is ``timm:tf_efficientnet_lite0``; see backbone.py.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torchvision.models.segmentation import LRASPP

from cdal.models.backbone_weights import EMBEDDED

LOW, HIGH = 2, 4
"""Timm's indices of the maps at stride 8, and of the deepest ones."""


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
