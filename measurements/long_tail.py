"""Make a pool with rare classes by thinning a data set's classes exponentially.

    python -m measurements.long_tail cifar10.zip OUT --most 1000 --rarest 20

In a data set of class folders, the first class keeps --most training images, the last --rarest, and
those between are spaced evenly on a logarithmic scale, as in the long-tailed CIFAR-10 of Cui et
al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019. All test images are
kept, so all classes count equally in the metrics.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from cdal.datasets import Example, open_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="a folder or zip of class folders")
    parser.add_argument("out", type=Path, help="the folder to create")
    parser.add_argument("--most", type=int, default=1000, help="images of the first class")
    parser.add_argument("--rarest", type=int, default=20, help="images of the last class")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images = open_images(options.dataset, seed=options.seed, task="classification")
    draws = np.random.default_rng(options.seed)
    sizes = np.geomspace(options.most, options.rarest, len(images.classes)).round().astype(int)
    kept = dict(zip(images.classes, sizes.tolist(), strict=True))
    for name, examples in by_class(images.train, images.classes).items():
        chosen = draws.permutation(len(examples))[: kept[name]]
        write([examples[row] for row in sorted(chosen)], options.out / "train" / name)
        print(f"{name}: {len(chosen)}")
    for name, examples in by_class(images.test, images.classes).items():
        write(examples, options.out / "test" / name)


def by_class(examples: Sequence[Example], classes: Sequence[str]) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        found[classes[int(example.target())]].append(example)
    return {name: found[name] for name in classes}


def write(examples: Sequence[Example], folder: Path) -> None:
    folder.mkdir(parents=True)
    for example in examples:
        (folder / PurePosixPath(example.name).name).write_bytes(example.image())


if __name__ == "__main__":
    main()
