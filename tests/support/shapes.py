"""A segmentation data set that can be learnt in a few steps, and the fastest network for it."""

from __future__ import annotations

import torch
from torch import Tensor

from cdal.models import BACKGROUND, SegmentationNetwork, make_network

COLOURS = ((220, 40, 40), (50, 60, 220), (120, 130, 120))
"""The colours of rectangles, discs and the background."""


class Shapes:
    """Images of a red rectangle and a blue disc on grey, with a little noise."""

    def __init__(self, count: int, size: tuple[int, int] = (64, 64), seed: int = 0) -> None:
        draws = torch.Generator().manual_seed(seed)
        self.examples = [_drawn(size, draws) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.examples[index]


def shapes_network(
    classes: tuple[str, ...] = ("rectangle", "disc", BACKGROUND),
    image_size: int = 64,
    seed: int = 0,
    architecture: str = "lraspp_mobilenet_v3_large",
) -> SegmentationNetwork:
    """A segmentation network, by default the fastest."""
    network = make_network(
        task="segmentation",
        architecture=architecture,
        classes=classes,
        image_size=image_size,
        seed=seed,
        pretrained=False,
    )
    assert isinstance(network, SegmentationNetwork)
    return network


def _drawn(size: tuple[int, int], draws: torch.Generator) -> tuple[Tensor, Tensor]:
    height, width = size
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    mask = torch.full(size, 2, dtype=torch.uint8)
    half = min(size) // 4
    for label, middle in ((0, width // 4), (1, 3 * width // 4)):
        row = int(torch.randint(half, height - half, (), generator=draws))
        if label == 0:
            mask[(rows - row).abs().maximum((columns - middle).abs()) < half] = 0
        else:
            mask[(rows - row) ** 2 + (columns - middle) ** 2 < half**2] = 1
    image = torch.tensor(COLOURS)[mask.long()].permute(2, 0, 1)
    image = image + torch.randint(-20, 21, image.shape, generator=draws)
    return image.clamp(0, 255).to(torch.uint8), mask
