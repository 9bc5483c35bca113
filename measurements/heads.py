"""Quality and seconds of head training on a frozen backbone, with few labels.

python measurements/heads.py --data ../shared/data/cifar10.zip --images 100 300 --seeds 0 1 2 3 4
python measurements/heads.py --data ../shared/data/camvid.zip --images 16 80
python measurements/heads.py --data ../shared/data/bccd.zip --images 8 24 52
"""

from __future__ import annotations

import argparse
import os
import random
import time
from pathlib import Path

import torch
from torch import Tensor

from cdal.datasets import LabelledImages, open_images
from cdal.models import Recipe, TaskNetwork, choose_device, fit, make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.data import PreparedImages

COLUMNS = (
    "network:size", "labels", "seed", "quality", "by class", "calibration error",
    "head: seconds", "head: CPU seconds", "test features: CPU seconds",
)  # fmt: skip


def calibration_error(network: TaskNetwork, images: PreparedImages, bins: int = 15) -> float | None:
    """The mean difference between confidence and accuracy of images in bins of confidence (Guo et
    al., ICML 2017); None where the image is not the region.
    """
    if network.task != "classification":
        return None
    confidences, right = [], []
    for batch, targets in images.batches(torch.split(torch.arange(len(images)), 64)):
        regions = network.predict(batch).regions
        assert isinstance(regions, Tensor)
        confidence, best = regions.max(1)
        confidences.append(confidence)
        right.append(best == torch.stack(targets))
    confidence, hits = torch.cat(confidences), torch.cat(right).float()
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins).index_add_(0, bin_of, hits - confidence)
    return float(gaps.abs().sum() / len(hits))


def measure(
    arguments: argparse.Namespace, network: TaskNetwork, test: PreparedImages, count: int, seed: int
) -> None:
    images = open_images(arguments.data, arguments.task)
    train = list(images.train)
    random.Random(seed).shuffle(train)  # a longer draw begins with a shorter one
    network = make_network(
        images.task, arguments.network, images.classes, network.image_size, network.device, seed
    )
    learnt = network.read(LabelledImages(images, train[:count]), lambda: False)
    for batch, _ in learnt.batches(torch.split(torch.arange(count), network.prediction_batch_size)):
        network.predict(batch)  # its features are kept, so that fit trains the head alone
    recipe = Recipe(
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        augmentation=not arguments.no_augmentation,
        class_weights=not arguments.no_class_weights,
        seed=seed,
    )
    processor = time.process_time()
    report = fit(network, learnt, None, recipe)
    processor = time.process_time() - processor
    evaluation = time.process_time()
    metrics = network.evaluate(test)
    evaluation = time.process_time() - evaluation
    error = calibration_error(network, test)
    scores = (f"{c.score:.2f}" for c in metrics.per_class.values() if c.score is not None)
    row = (
        f"{arguments.network}:{network.image_size}",
        str(count),
        str(seed),
        f"{metrics.main:.3f}",
        ", ".join(scores),
        "" if error is None else f"{error:.3f}",
        f"{report.seconds:.1f}",
        f"{processor:.1f}",
        f"{evaluation:.1f}",
    )
    print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", help="where the layout does not say it")
    parser.add_argument("--network", default=DEFAULT_BACKBONE)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--images", nargs="+", type=int, default=[100, 300])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--test-images", type=int, default=1000, help="drawn at random")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--no-augmentation", action="store_true")
    parser.add_argument("--no-class-weights", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = open_images(arguments.data, arguments.task)
    test = list(images.test)
    random.Random(0).shuffle(test)
    network = make_network(
        images.task,
        arguments.network,
        images.classes,
        arguments.image_size,
        choose_device(arguments.device),
    )
    prepared = network.read(LabelledImages(images, test[: arguments.test_images]), lambda: False)
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" * len(COLUMNS) + "|")
    for count in arguments.images:
        for seed in arguments.seeds:
            measure(arguments, network, prepared, count, seed)


if __name__ == "__main__":
    main()
