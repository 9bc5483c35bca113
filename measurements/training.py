"""Accuracy and seconds of training all weights on a few CIFAR-10 images.

python measurements/training.py --images 150 600 --networks resnet18:32 mobilenet_v3_small:64
"""

from __future__ import annotations

import argparse
import io
import random
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from shared import print_row, train_each, training_parser
from torch import Tensor, nn

from cdal.models import Recipe, choose_device, fit, make_network
from cdal.models.classification import architectures

COLUMNS = (
    "network:size", "images", "seed", "epochs", "batch", "rate", "training loss", "test accuracy",
    "test loss", "seconds", "CPU seconds",
)  # fmt: skip


class ZippedImages:
    """Some images of a zip of class folders, decoded on access."""

    def __init__(self, path: Path, members: list[str], classes: list[str]) -> None:
        with zipfile.ZipFile(path) as archive:
            self._encoded = [archive.read(member) for member in members]
        self._targets = [classes.index(member.split("/")[1]) for member in members]

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = np.array(Image.open(io.BytesIO(self._encoded[index])).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), torch.tensor(
            self._targets[index]
        )


def members(path: Path, split: str, count: int, seed: int) -> list[str]:
    """A random sample of a split's members; a larger sample begins with the smaller one."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith(split + "/"))
    random.Random(seed).shuffle(names)
    return names[:count]


def use_stem(stem: str) -> None:
    """Give resnet18 a different stem for small images."""

    def dense(module: nn.Module) -> None:
        architectures.small_stem(module)
        module.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)

    changes = {"small": architectures.small_stem, "own": lambda _: None, "dense": dense}
    networks = dict(architectures.CLASSIFIERS)
    networks["resnet18"] = replace(networks["resnet18"], small=changes[stem])
    architectures.CLASSIFIERS = networks


def measure(arguments: argparse.Namespace, network_name: str, images: int, seed: int) -> None:
    architecture, _, size = network_name.rpartition(":")
    test = members(arguments.data, "test", arguments.test_images, seed=0)
    train = members(arguments.data, "train", images, seed)
    classes = sorted({name.split("/")[1] for name in test})
    recipe = Recipe(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        label_smoothing=arguments.label_smoothing,
        weight_decay=arguments.weight_decay,
        augmentation=not arguments.no_augmentation,
        seed=seed,
    )
    network = make_network(
        architecture=architecture,
        classes=classes,
        image_size=int(size),
        device=choose_device(arguments.device),
        seed=seed,
        pretrained=arguments.pretrained,
    )
    split = images // 5 if arguments.held_out else 0
    processor = time.process_time()
    report = fit(
        network,
        ZippedImages(arguments.data, train[split:], classes),
        ZippedImages(arguments.data, train[:split], classes) if split else None,
        recipe,
    )
    processor = time.process_time() - processor
    metrics = network.evaluate(ZippedImages(arguments.data, test, classes))
    row = (
        network_name,
        str(images),
        str(seed),
        str(report.plan.epochs),
        str(report.plan.batch_size),
        f"{report.plan.learning_rate:g}",
        f"{report.losses[-1]:.2f}",
        f"{metrics.values['accuracy']:.3f}",
        f"{metrics.values['loss']:.2f}",
        f"{report.seconds:.1f}",
        f"{processor:.1f}",
    )
    print_row(row)


def speed(network_name: str, layout: torch.memory_format, steps: int = 12) -> float:
    """Images per processor second (forward, backward and update) in steps of 32 random images."""
    architecture, _, size = network_name.rpartition(":")
    network = make_network(
        architecture=architecture, classes=["a", "b"], image_size=int(size), pretrained=False
    )
    module = network.module.to(memory_format=layout).train()
    optimiser = torch.optim.AdamW(module.parameters())
    images = torch.randn(32, 3, int(size), int(size)).contiguous(memory_format=layout)
    targets = torch.randint(0, 2, (32,))
    seconds = []
    for _ in range(steps):
        begun = time.process_time()
        optimiser.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(module(images)[1], targets))
        optimiser.step()
        seconds.append(time.process_time() - begun)
    return len(images) / median(seconds)


def main() -> None:
    parser = training_parser(
        __doc__, "cifar10.zip", ["resnet18:32", "mobilenet_v3_small:64"], [150, 600], 1000
    )
    parser.add_argument("--pretrained", action="store_true", help="start from published weights")
    parser.add_argument("--stem", choices=("small", "own", "dense"), default="small")
    parser.add_argument("--label-smoothing", type=float)
    parser.add_argument("--held-out", action="store_true", help="hold out a fifth and measure it")
    parser.add_argument("--speed", action="store_true", help="only the speed of a step, on the CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    use_stem(arguments.stem)
    if arguments.speed:
        for name in arguments.networks:
            rates = [speed(name, f) for f in (torch.contiguous_format, torch.channels_last)]
            print(f"| {name} | {arguments.stem} | {rates[0]:.0f} | {rates[1]:.0f} |", flush=True)
        return
    train_each(arguments, COLUMNS, measure)


if __name__ == "__main__":
    main()
