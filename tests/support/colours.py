"""A classification data set that can be learnt in a few steps, and the fastest network for it."""

from __future__ import annotations

import torch
from torch import Tensor

from cdal.models import ClassificationNetwork, make_network

COLOURS = ((220, 40, 40), (40, 200, 60), (50, 60, 220), (220, 210, 50))


class Colours:
    """Images in the colour of their class, with a little noise."""

    def __init__(self, targets: list[int], size: int = 32, seed: int = 0) -> None:
        self.targets = targets
        noise = torch.Generator().manual_seed(seed)
        self.images = [
            (
                torch.tensor(COLOURS[target % len(COLOURS)]).view(3, 1, 1)
                + torch.randint(-30, 31, (3, size, size), generator=noise)
            )
            .clamp(0, 255)
            .to(torch.uint8)
            for target in targets
        ]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], torch.tensor(self.targets[index])


def small_network(
    classes: tuple[str, ...] = ("red", "green", "blue"), seed: int = 0
) -> ClassificationNetwork:
    """The fastest network, for tests that are not about the network itself."""
    network = make_network(
        architecture="mobilenet_v3_small",
        classes=classes,
        image_size=32,
        seed=seed,
        pretrained=False,
    )
    assert isinstance(network, ClassificationNetwork)
    return network
