"""Images of two touching objects of a class, with the objects' numbers, and a small Mask R-CNN."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18

from cdal.models.detection.pyramid import FASTER_RCNN

COLOURS = torch.tensor([[220, 60, 50], [60, 80, 220], [120, 130, 120]], dtype=torch.uint8)


def make_mask_rcnn_small(patch: pytest.MonkeyPatch) -> None:
    """The same layers on 18 layers of a ResNet instead of 50, and few boxes per image.

    Otherwise a training step takes seconds on a CPU, most of them for the masks.
    """
    patch.setattr("torchvision.models.detection.mask_rcnn.resnet50", resnet18)
    patch.setattr("cdal.models.detection.pyramid.MAX_BOXES", 3)
    few = {"box_batch_size_per_image": 8, "rpn_post_nms_top_n_train": 20}
    for name, value in {**few, "rpn_post_nms_top_n_test": 20}.items():
        patch.setitem(FASTER_RCNN, name, value)  # type: ignore[arg-type]


class Pairs:
    """Two discs or two squares side by side on grey; their class is 0 or 1, and 2 is background."""

    def __init__(self, count: int, side: int, seed: int = 0) -> None:
        draws = torch.Generator().manual_seed(seed)
        self.examples = [_drawn(index % 2, side, draws) for index in range(count)]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.examples[index]


def _drawn(label: int, side: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """An image, and its target with objects, (2, S, S) int16."""
    target = torch.full((2, side, side), 2, dtype=torch.int16)
    target[1] = 0
    radius = side // 8
    across, down = torch.randint(2 * radius, side - 3 * radius, (2,), generator=draws).tolist()
    rows, columns = torch.arange(side)[:, None] - down, torch.arange(side)
    for number, column in ((1, across), (2, across + 2 * radius - 1)):
        beside = columns - column
        if label == 0:
            inside = rows**2 + beside**2 <= radius**2
        else:
            inside = (rows.abs() <= radius) & (beside.abs() <= radius)
        target[0][inside], target[1][inside] = label, number
    image = COLOURS[target[0].long()].permute(2, 0, 1).int()
    # Each is lighter in its middle, so that two can be told apart.
    noise = torch.randint(-20, 21, image.shape, generator=draws)
    shade = 20 * (target[1] == 2).int()
    return (image + noise + shade).clamp(0, 255).to(torch.uint8), target
