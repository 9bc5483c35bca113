"""Real training on real images."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cdal.models import Recipe, fit, make_network

pytestmark = pytest.mark.data


class Zipped:
    """Random images of one split."""

    def __init__(self, path: Path, split: str, count: int) -> None:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.startswith(split))
            self.classes = sorted({name.split("/")[1] for name in names})
            drawn = random.Random(0).sample(names, count)
            self.items = [
                (archive.read(name), self.classes.index(name.split("/")[1])) for name in drawn
            ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        encoded, target = self.items[index]
        pixels = np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), torch.tensor(target)


@pytest.mark.slow
def test_learns_clearly_better_than_chance(cifar10: Path) -> None:
    train, test = Zipped(cifar10, "train", 300), Zipped(cifar10, "test", 300)
    network = make_network(
        architecture="mobilenet_v3_small", classes=train.classes, image_size=32, pretrained=False
    )
    fit(network, train, None, Recipe(epochs=20))
    # Chance is 0.1, with a standard deviation of 0.017 on 300 images.
    assert network.evaluate(test).main > 0.2
