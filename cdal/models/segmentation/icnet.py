"""ICNet (Zhao et al., ECCV 2018): a cascade of three resolutions, as RBAL uses it.

A quarter of the resolution goes through a whole dilated ResNet-50 with pyramid pooling, half of it
through the first part of the same network, and the full resolution through three light
convolutions; two cascade feature fusions join them (section 3.2 and 3.3, figures 3 and 5). Class
scores are at a quarter of the resolution. Departures: the loss is that of the last scores alone,
without the auxiliary ones of the coarser branches (section 3.4), and no channels are pruned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torchvision.models
from torch import Tensor, nn
from torch.nn import functional

FUSED = 128
POOLED = 512
BINS = (1, 2, 3, 6)


class Backbone(nn.Module):
    """The three branches; maps at strides 8, 16 and 32 of the image."""

    def __init__(self) -> None:
        super().__init__()
        resnet = torchvision.models.resnet50(
            weights=None, replace_stride_with_dilation=[False, True, True]
        )
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        self.shared = nn.Sequential(resnet.layer1, resnet.layer2)
        self.deep = nn.Sequential(resnet.layer3, resnet.layer4)
        self.reduce = _convolution(2048, POOLED, 1)
        self.light = nn.Sequential(
            _convolution(3, 32, 3, stride=2),
            _convolution(32, 32, 3, stride=2),
            _convolution(32, 64, 3, stride=2),
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        half, quarter = (_scaled(images, 1 / part) for part in (2, 4))
        middle = self.shared(self.stem(half))
        deep = self.deep(self.shared(self.stem(quarter)))
        size = deep.shape[2:]
        pyramid = deep
        for bins in BINS:
            pooled = functional.adaptive_avg_pool2d(deep, bins)
            pyramid = pyramid + _resized(pooled, size)
        return {"light": self.light(images), "middle": middle, "deep": self.reduce(pyramid)}


class Fusion(nn.Module):
    """Cascade feature fusion: a coarse map, enlarged and dilated, and a projected finer one."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.coarse = nn.Sequential(
            nn.Conv2d(coarse, FUSED, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(FUSED)
        )
        self.fine = nn.Sequential(nn.Conv2d(fine, FUSED, 1, bias=False), nn.BatchNorm2d(FUSED))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        enlarged = _resized(coarse, fine.shape[2:])
        return functional.relu(self.coarse(enlarged) + self.fine(fine))


class Cascade(nn.Module):
    """Both fusions, and class scores at a quarter of the image's resolution."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.lower = Fusion(POOLED, 512)
        self.upper = Fusion(FUSED, 64)
        self.score = nn.Conv2d(FUSED, classes, 1)

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        fused = self.upper(self.lower(maps["deep"], maps["middle"]), maps["light"])
        scores: Tensor = self.score(_scaled(fused, 2))
        return scores


class IcNet(nn.Module):
    """Backbone and cascade; the cascade needs all maps."""

    takes_all_maps = True

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.classifier = Cascade(classes)


def _convolution(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _scaled(maps: Tensor, factor: float) -> Tensor:
    return _resized(maps, [max(1, round(side * factor)) for side in maps.shape[2:]])


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(maps, size=list(size), mode="bilinear", align_corners=False)
