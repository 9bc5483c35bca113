"""A detection data set that can be learnt in a few steps, and the fastest network for it."""

from __future__ import annotations

import torch
from torch import Tensor

from cdal.models import DetectionNetwork, make_network

CLASSES = ("red", "blue")
COLOURS = ((220, 30, 30), (30, 30, 220))


class Rectangles:
    """Noisy grey images, 96 high and 128 wide, with up to two rectangles in their class's colour.

    Their sides are 24 to 48 pixels. They do not overlap: one is in the left half, one in the right.
    """

    def __init__(self, count: int, seed: int = 0) -> None:
        draws = torch.Generator().manual_seed(seed)
        self.examples = [self._draw(draws) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.examples[index]

    def _draw(self, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        image = torch.randint(100, 156, (3, 96, 128), generator=draws).to(torch.uint8)
        rows = []
        for half in (0, 64):
            if torch.rand((), generator=draws) < 0.25:
                continue
            width, height = torch.randint(24, 49, (2,), generator=draws).tolist()
            left = half + int(torch.randint(0, 65 - width, (), generator=draws))
            top = int(torch.randint(0, 97 - height, (), generator=draws))
            label = int(torch.randint(0, 2, (), generator=draws))
            colour = torch.tensor(COLOURS[label], dtype=torch.uint8)
            image[:, top : top + height, left : left + width] = colour.view(3, 1, 1)
            rows.append([left, top, left + width, top + height, label])
        return image, torch.tensor(rows, dtype=torch.float32).view(-1, 5)


def small_detector(
    classes: tuple[str, ...] = CLASSES, seed: int = 0, image_size: int = 64
) -> DetectionNetwork:
    """The fastest detector, for tests that are not about the network itself."""
    network = make_network(
        "detection",
        "ssdlite320_mobilenet_v3_large",
        classes,
        image_size,
        seed=seed,
        pretrained=False,
    )
    assert isinstance(network, DetectionNetwork)
    return network
