"""Quality, calibration and seconds of head training on a frozen backbone, with few labels.

python measurements/heads.py --data ../shared/data/cifar10.zip --images 100 300 --seeds 0 1 2 3 4
python measurements/heads.py --data ../shared/data/camvid.zip --images 16 80 --seeds 0 1 2 3 4
python measurements/heads.py --data ../shared/data/bccd.zip --images 8 24 52 --seeds 0 1 2 3 4
python measurements/heads.py --data ../shared/data/bccd.zip --task multilabel --images 24 100
python measurements/heads.py --data ../shared/data/cifar10.zip --penalties 0.01 0.03 0.1 0.3 1
python measurements/heads.py --data ../shared/data/bccd.zip --task multilabel --penalties 0.1 1 3

The last two commands compare L2 penalties of the classifier, and their choice by cross-validation.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou

from cdal.datasets import LabelledImages, open_images
from cdal.models import DetectionNetwork, Recipe, TaskNetwork, choose_device, fit, make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.classification.logistic import Logistic, fit_independent, fit_logistic
from cdal.models.classification.pooled import PooledHead
from cdal.models.data import PreparedImages
from cdal.models.predictions import CHOSEN
from cdal.models.recipe import class_weights
from cdal.models.segmentation.head import SegmentationHead, class_shares

COLUMNS = (
    "labels", "seed", "quality", "by class", "calibration error", "of a calibrated head",
    "confidence - accuracy", "head: seconds", "head: CPU seconds",
)  # fmt: skip
BINS = 15
FOLDS = 5


def regions(network: TaskNetwork, images: PreparedImages) -> Iterator[tuple[Tensor, Tensor]]:
    """Confidences and whether they are right, (K,) each, of the regions of labelled images.

    A region is an image, a place of 8×8 pixels with labelled ones, of which the most frequent
    class is right, or a box that is found, which is right if it overlaps an object of its class by
    half that no more confident box overlaps. In multi-label classification it is a class of an
    image, which is right if the image has it.
    """
    if isinstance(network, DetectionNetwork):
        for found, target in zip(*network.find(images), strict=True):
            yield found["scores"], matched(found["boxes"], found["labels"], target)
        return
    for batch, targets in images.batches(torch.split(torch.arange(len(images)), 16)):
        predicted = network.predict(batch)
        for vectors, target, content in zip(
            predicted.regions, targets, getattr(predicted, "contents", [None] * 16), strict=False
        ):
            if network.task == "multilabel":
                yield vectors.cpu().float(), target >= CHOSEN
                continue
            confidence, best = vectors.cpu().float().max(-1)
            if isinstance(network, SegmentationHead):
                shares = class_shares(target, content, len(network.classes))
                rows, columns = (-(-side // 8) for side in content)
                share, right = shares[:, :rows, :columns].flatten(1).max(0)
                yield confidence[share > 0], (best == right)[share > 0]
            else:
                yield confidence[None], (best == target)[None]


def matched(boxes: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """Which boxes (K, 4), the most confident first, are right, (K,) bool."""
    free = (labels[:, None] == target[:, 4]) & (box_iou(boxes, target[:, :4]) >= 0.5)
    right = torch.zeros(len(boxes), dtype=torch.bool)
    for row in range(len(boxes)):
        if free[row].any():
            right[row] = True
            free[:, int(free[row].int().argmax())] = False
    return right


def calibration(confidence: Tensor, right: Tensor) -> tuple[float, float]:
    """The expected calibration error (Guo et al., ICML 2017), and by how much the mean confidence
    exceeds the accuracy.
    """
    bin_of = (confidence * BINS).long().clamp(max=BINS - 1)
    excess = confidence - right.float()
    gaps = torch.zeros(BINS).index_add_(0, bin_of, excess)
    return float(gaps.abs().sum() / len(right)), float(excess.mean())


def error_by_chance(confidence: Tensor) -> float:
    """The calibration error of as many regions if each is right as often as its confidence says."""
    draws = torch.Generator().manual_seed(0)
    drawn = (torch.rand(len(confidence), generator=draws) < confidence for _ in range(20))
    return mean(calibration(confidence, right)[0] for right in drawn)


def measure(
    arguments: argparse.Namespace, network: TaskNetwork, test: PreparedImages, count: int, seed: int
) -> tuple[str, ...]:
    train = labelled(arguments, network, count, seed)
    network = make_network(
        network.task, arguments.network, network.classes, network.image_size, network.device, seed
    )
    for batch, _ in train.batches(torch.split(torch.arange(count), network.prediction_batch_size)):
        network.predict(batch)  # its features are kept, so that fit trains the head alone
    recipe = Recipe(
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        augmentation=not arguments.no_augmentation,
        class_weights=not arguments.no_class_weights,
        seed=seed,
    )
    processor = time.process_time()
    report = fit(network, train, None, recipe)
    processor = time.process_time() - processor
    metrics = network.evaluate(test)
    found = list(regions(network, test))
    confidence, right = (torch.cat(each) for each in zip(*found, strict=True))
    error, excess = calibration(confidence, right)
    scores = (f"{c.score:.2f}" for c in metrics.per_class.values() if c.score is not None)
    return (
        str(count), str(seed), f"{metrics.main:.3f}", ", ".join(scores), f"{error:.3f}",
        f"{error_by_chance(confidence):.3f}", f"{excess:+.3f}", f"{report.seconds:.1f}",
        f"{processor:.1f}",
    )  # fmt: skip


def labelled(
    arguments: argparse.Namespace, network: TaskNetwork, count: int, seed: int
) -> PreparedImages:
    """Random training images; a longer draw begins with a shorter one."""
    images = open_images(arguments.data, arguments.task)
    train = list(images.train)
    random.Random(seed).shuffle(train)
    return network.read(LabelledImages(images, train[:count]), lambda: False)


def compare_penalties(
    arguments: argparse.Namespace, network: TaskNetwork, test: PreparedImages
) -> None:
    """Print accuracy and calibration error of each penalty, and of the one that has the lowest
    cross entropy in a five-fold cross-validation.
    """
    assert isinstance(network, PooledHead)
    judge = judge_each if network.task == "multilabel" else judge_one
    x, y = vectors(network, test)

    def learn(features: Tensor, labels: Tensor, penalty: float) -> Logistic:
        if network.task == "multilabel":
            return fit_independent(features, labels, penalty)
        weights = class_weights(torch.bincount(labels, minlength=len(network.classes)))
        return fit_logistic(features, labels, weights, penalty)

    print("| labels | penalty | accuracy | calibration error | confidence - accuracy | loss |")
    print("|---" * 6 + "|")
    for count in arguments.images:
        rows: dict[str, list[tuple[float, ...]]] = {}
        for seed in arguments.seeds:
            features, labels = vectors(network, labelled(arguments, network, count, seed))
            fold = torch.randperm(count, generator=torch.Generator().manual_seed(seed)) % FOLDS
            losses = {}
            for penalty in arguments.penalties:
                name = f"{penalty:g}"
                found = judge(learn(features, labels, penalty), x, y)
                error = calibration(found.confidence, found.right)
                row = found.accuracy, *error, found.loss / len(y)
                rows.setdefault(name, []).append(row)
                outs = [fold == number for number in range(FOLDS)]
                losses[name] = sum(
                    judge(
                        learn(features[~out], labels[~out], penalty), features[out], labels[out]
                    ).loss
                    for out in outs
                )
            chosen = min(losses, key=lambda penalty: losses[penalty])
            rows.setdefault("cross-validated", []).append(rows[chosen][-1])
        for name, results in rows.items():
            means = [mean(column) for column in zip(*results, strict=True)]
            print(f"| {count} | {name} | " + " | ".join(f"{value:.3f}" for value in means) + " |")


class Answers(NamedTuple):
    """What a classifier says about images, and the sum of their cross entropies."""

    confidence: Tensor
    right: Tensor
    accuracy: float
    loss: float


def judge_one(head: Logistic, x: Tensor, y: Tensor) -> Answers:
    """One answer per image: its most probable class."""
    logits = x @ head.weight.T + head.bias
    confidence, best = logits.softmax(1).max(1)
    right = best == y
    loss = functional.cross_entropy(logits, y, reduction="sum")
    return Answers(confidence, right, float(right.float().mean()), float(loss))


def judge_each(head: Logistic, x: Tensor, y: Tensor) -> Answers:
    """One answer per image and class: the probability that the image has it."""
    logits, there = x @ head.weight.T + head.bias, y >= CHOSEN
    right = (logits >= 0) == there
    loss = functional.binary_cross_entropy_with_logits(logits, y, reduction="sum")
    confidence = logits.sigmoid().flatten()
    return Answers(confidence, there.flatten(), float(right.float().mean()), float(loss))


def vectors(network: PooledHead, images: PreparedImages) -> tuple[Tensor, Tensor]:
    """The pooled features (N, D) and the labels (N,) of images."""
    features, targets = network.seen(images, lambda: False)
    return torch.stack([each.maps[0] for each in features]).float(), torch.stack(list(targets))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", help="where the layout does not say it")
    parser.add_argument("--network", default=DEFAULT_BACKBONE)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--images", nargs="+", type=int, default=[100, 300])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--test-images", type=int, default=1000, help="drawn at random")
    parser.add_argument("--penalties", nargs="+", type=float, help="compare these")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--no-augmentation", action="store_true")
    parser.add_argument("--no-class-weights", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = open_images(arguments.data, arguments.task)
    drawn = list(images.test)
    random.Random(0).shuffle(drawn)
    network = make_network(
        images.task,
        arguments.network,
        images.classes,
        arguments.image_size,
        choose_device(arguments.device),
    )
    test = network.read(LabelledImages(images, drawn[: arguments.test_images]), lambda: False)
    print(f"{arguments.network} at side {network.image_size}, {len(test)} test images\n")
    if arguments.penalties:
        compare_penalties(arguments, network, test)
        return
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" * len(COLUMNS) + "|")
    for seed in arguments.seeds:
        for count in arguments.images:
            row = measure(arguments, network, test, count, seed)
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
