"""DRN-D-22, the dilated residual network of Yu, Koltun and Funkhouser (CVPR 2017).

Its feature maps keep an eighth of the image's resolution: where a residual network halves the
resolution for the last two levels, this one dilates its convolutions instead, and two levels of
smaller dilation without shortcuts remove the gridding artefacts (Sec. 4, Fig. 5, version D).
"""

from __future__ import annotations

import math

from torch import Tensor, nn

CHANNELS = 512
"""The number of channels of the last feature map."""


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, dilations: tuple[int, int]) -> None:
        super().__init__()
        first, second = dilations
        self.conv1 = _conv(inputs, outputs, stride=stride, dilation=first)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(outputs, outputs, dilation=second)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(maps)))
        result: Tensor = self.relu(self.bn2(self.conv2(inner)) + self.downsample(maps))
        return result


class Backbone(nn.Module):
    """Levels 0 to 8; parameter names match the weights that the authors publish."""

    def __init__(self) -> None:
        super().__init__()
        self.layer0 = _smooth(3, 16, kernel=7)
        self.layer1 = _smooth(16, 16)
        self.layer2 = _smooth(16, 32, stride=2)
        self.layer3 = _residual(32, 64, blocks=2, stride=2)
        self.layer4 = _residual(64, 128, blocks=2, stride=2)
        self.layer5 = _residual(128, 256, blocks=2, dilation=2)
        self.layer6 = _residual(256, 512, blocks=2, dilation=4)
        self.layer7 = _smooth(512, CHANNELS, dilation=2)
        self.layer8 = _smooth(CHANNELS, CHANNELS)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute {"out": (B, 512, S / 8, S / 8)} of images (B, 3, S, S)."""
        maps = images
        for level in self.children():
            maps = level(maps)
        return {"out": maps}


class DilatedResidualNetwork(nn.Module):
    """The backbone, and a 1×1 convolution for class logits at an eighth of the side."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.classifier = nn.Conv2d(CHANNELS, classes, kernel_size=1)
        for layer in self.backbone.modules():
            if isinstance(layer, nn.Conv2d):
                # As the authors do, but not for the classifier, whose logits would exceed ten.
                outputs = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
                nn.init.normal_(layer.weight, std=math.sqrt(2 / outputs))


def drn_d_22(classes: int) -> DilatedResidualNetwork:
    """DRN-D-22 for this number of classes."""
    return DilatedResidualNetwork(classes)


def _conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


def _smooth(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    convolution = _conv(inputs, outputs, kernel, stride, dilation)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _residual(
    inputs: int, outputs: int, blocks: int, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    later = [ResidualBlock(outputs, outputs, 1, (dilation, dilation)) for _ in range(blocks - 1)]
    return nn.Sequential(ResidualBlock(inputs, outputs, stride, (dilation, dilation)), *later)
