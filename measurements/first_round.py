"""The first labels of a pool: what selectors that need no model choose, against random images.

python measurements/first_round.py --data ../shared/data/cifar10.zip --pool 10000 --image-size 64

A head on the frozen backbone learns the labels of the first picks; its accuracy is measured on test
images.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
from heads import vectors
from torch import Tensor

from cdal.backend.loop.select import in_parts, parts_of
from cdal.datasets import Example, LabelledImages, open_images
from cdal.models import choose_device, make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.classification.head import ClassificationHead
from cdal.models.classification.logistic import fit_logistic
from cdal.models.recipe import class_weights
from cdal.selectors import Pool, make_selector


def unseen_pool(features: Tensor, classes: int) -> Pool:
    """A pool that no model has scored: nothing but features, (N, D)."""
    count = len(features)
    return Pool(
        mixtures=torch.zeros(count, 1, classes),
        present=torch.zeros(count, 1, dtype=torch.bool),
        labelled=torch.zeros(count, dtype=torch.bool),
        features=features,
    )


def ranked(name: str, pool: Pool, count: int, seed: int) -> list[int]:
    """The rows of the first images by a selector, in the order in which the backend queues them."""
    selector = make_selector(name)
    if name != "typiclust":
        return selector.select(pool, count, seed).indices
    return in_parts(selector, pool, parts_of(count, count), seed, lambda _: None).indices


def accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int) -> float:
    """The share of the test images that a head is right about; each is features and labels."""
    weights = class_weights(torch.bincount(train[1], minlength=classes))
    head = fit_logistic(*train, weights)
    predicted = (test[0] @ head.weight.T + head.bias).argmax(1)
    return float((predicted == test[1]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="classified images")
    parser.add_argument("--network", default=DEFAULT_BACKBONE)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--pool", type=int, default=10_000, help="training images, drawn")
    parser.add_argument("--test-images", type=int, default=1000, help="drawn")
    parser.add_argument("--labels", type=int, default=30)
    parser.add_argument("--queue", type=int, default=100, help="images ranked, as by the backend")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--selectors", nargs="+", default=["random", "typiclust", "prob-cover"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = open_images(options.data, "classification")
    network = make_network(
        images.task,
        options.network,
        images.classes,
        options.image_size,
        choose_device(options.device),
    )
    assert isinstance(network, ClassificationHead)

    def drawn(examples: Sequence[Example], count: int) -> tuple[Tensor, Tensor]:
        chosen = random.Random(0).sample(list(examples), min(count, len(examples)))
        return vectors(network, network.read(LabelledImages(images, chosen), lambda: False))

    features, labels = drawn(images.train, options.pool)
    test = drawn(images.test, options.test_images)
    classes = len(images.classes)
    pool = unseen_pool(features, classes)
    print(
        f"{options.network} at side {network.image_size}: {len(pool)} images, "
        f"{options.labels} labels, {len(test[1])} test images, {options.seeds} seeds\n"
    )
    print("| selector | accuracy | lowest and highest | classes found | seconds to select |")
    print("|---" * 5 + "|")
    for name in options.selectors:
        reached, found, seconds = [], [], []
        for seed in range(options.seeds):
            began = time.perf_counter()
            picks = ranked(name, pool, max(options.labels, options.queue), seed)[: options.labels]
            seconds.append(time.perf_counter() - began)
            reached.append(100 * accuracy((features[picks], labels[picks]), test, classes))
            found.append(len(set(labels[picks].tolist())))
        print(
            f"| `{name}` | {mean(reached):.1f} ± {stdev(reached):.1f} "
            f"| {min(reached):.1f} to {max(reached):.1f} "
            f"| {mean(found):.1f} of {classes} | {mean(seconds):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
