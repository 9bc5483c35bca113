"""How the results of a full training on Ray differ from those of a local one.

    python measurements/ray_training.py --seeds 5

For each seed, the same network learns the same images of CIFAR-10 three times, and is measured on
the same others: locally, locally with other random choices, and on a Ray cluster of this machine,
whose two processes average their gradients. The second shows how far trainings differ anyway.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from engines import from_scratch, ray_engine
from shared import DATA, print_header, print_row

from cdal.backend.loop.engines.engine import Engine
from cdal.backend.loop.engines.local import LocalEngine
from cdal.datasets import Example, ImageSet, LabelledImages, open_images
from cdal.models import Recipe

OTHER_CHOICES = 1000
"""Added to the seed."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA / "cifar10.zip")
    parser.add_argument("--network", default="mobilenet_v3_small")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = open_images(options.data)
    test = LabelledImages(images, Random(0).sample(images.test, options.test))
    print_header(["seed", "local", "local, other choices", "Ray, two processes"])
    found = []
    with tempfile.TemporaryDirectory() as folder, ray_engine(Path(folder), "") as ray:
        for seed in range(options.seeds):
            train = Random(seed).sample(images.train, options.images)
            first, second, third = (
                trained(options, images, train, test, seed, choices, engine)
                for engine, choices in (
                    (LocalEngine(), seed),
                    (LocalEngine(), seed + OTHER_CHOICES),
                    (ray, seed),
                )
            )
            found.append((second - first, third - first))
            print_row([str(seed), *(f"{100 * each:.1f}" for each in (first, second, third))])
    differences = [difference(column) for column in zip(*found, strict=True)]
    print_row(["difference from local", "", *differences])


def difference(values: Sequence[float]) -> str:
    """The mean with its standard error, and the standard deviation, in percent."""
    mean = f"{100 * statistics.fmean(values):+.1f}"
    if len(values) < 2:
        return mean
    deviation = 100 * statistics.stdev(values)
    return f"{mean} ± {deviation / len(values) ** 0.5:.1f} (deviation {deviation:.1f})"


def trained(
    options: argparse.Namespace,
    images: ImageSet,
    train: Sequence[Example],
    test: LabelledImages,
    seed: int,
    choices: int,
    engine: Engine,
) -> float:
    """The test accuracy after a training; the first weights depend on `seed` alone."""
    network = from_scratch(images, options, seed)
    recipe = Recipe(epochs=options.epochs, seed=choices)
    data = LabelledImages(images, train)
    engine.fit(network, data, None, recipe, lambda _: None, lambda: False)
    return network.evaluate(test).main


if __name__ == "__main__":
    main()
