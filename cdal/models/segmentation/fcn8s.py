"""FCN-8s (Long, Shelhamer and Darrell, CVPR 2015), a quarter as wide.

As CEREALS uses it (Mackowiak et al., BMVC 2018): VGG16's convolutions with a width multiplier of
0.25, its fully connected layers as convolutions, and class scores at strides 32, 16 and 8, added
from the coarsest to the finest (section 4.3 of FCN). Departures: every convolution has batch
normalisation, without which it hardly learns from scratch; the scores are enlarged bilinearly by
fixed weights, from which the authors only start; and images are padded by the kernels' size instead
of 100 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

WIDTH = 0.25
LEVELS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of convolutions between the poolings of VGG16."""
FULLY_CONNECTED = 4096
DROPPED = 0.5


class Backbone(nn.Module):
    """VGG16's convolutions, and its fully connected layers as convolutions."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        before = 3
        for channels, count in LEVELS:
            after = round(width * channels)
            layers: list[nn.Module] = []
            for _ in range(count):
                layers.append(_convolution(before, after, 3))
                before = after
            self.levels.append(nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True)))
        hidden = round(width * FULLY_CONNECTED)
        self.connected = nn.Sequential(
            _convolution(before, hidden, 7),
            nn.Dropout2d(DROPPED),
            _convolution(hidden, hidden, 1),
            nn.Dropout2d(DROPPED),
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The maps at strides 8, 16 and 32 of images (B, 3, H, W)."""
        found = []
        maps = images
        for level in self.levels:
            maps = level(maps)
            found.append(maps)
        return {"8": found[2], "16": found[3], "32": self.connected(maps)}


class Scores(nn.Module):
    """Class scores of each map, added at stride 8."""

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        channels = {"8": 256, "16": 512, "32": FULLY_CONNECTED}
        self.scores = nn.ModuleDict(
            {name: nn.Conv2d(round(width * count), classes, 1) for name, count in channels.items()}
        )

    def forward(self, maps: Mapping[str, Tensor]) -> Tensor:
        scores = {name: score(maps[name]) for name, score in self.scores.items()}
        middle = scores["16"] + _enlarged(scores["32"], scores["16"])
        finest: Tensor = scores["8"] + _enlarged(middle, scores["8"])
        return finest


class Fcn8s(nn.Module):
    """Backbone and scores; the scores need all maps."""

    takes_all_maps = True

    def __init__(self, classes: int, width: float = WIDTH) -> None:
        super().__init__()
        self.backbone = Backbone(width)
        self.classifier = Scores(width, classes)


def _convolution(before: int, after: int, kernel: int) -> nn.Sequential:
    layer = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _enlarged(scores: Tensor, like: Tensor) -> Tensor:
    size = like.shape[2:]
    return functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)
