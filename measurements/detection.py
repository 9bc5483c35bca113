"""Average precision and seconds of training detectors from scratch on a few BCCD images.

python measurements/detection.py --images 20 80 --networks ssdlite320_mobilenet_v3_large:224
"""

from __future__ import annotations

import argparse
import random
import time

import torch
from shared import print_row, train_each, training_parser

from cdal.datasets import LabelledImages, open_images
from cdal.models import Recipe, TaskNetwork, choose_device, fit, make_network
from cdal.models.data import PreparedImages
from cdal.models.detection import regions as box_regions

COLUMNS = (
    "network:size", "images", "seed", "epochs", "batch", "rate", "training loss", "mAP@0.5",
    "mAP@[.5:.95]", "AP@0.5 by class", "seconds", "CPU seconds", "evaluation",
)  # fmt: skip


def measure(arguments: argparse.Namespace, network_name: str, count: int, seed: int) -> None:
    architecture, _, size = network_name.partition(":")
    images = open_images(arguments.data, "detection")
    train = list(images.train)
    random.Random(seed).shuffle(train)  # a larger sample begins with the smaller one
    network = make_network(
        "detection",
        architecture,
        images.classes,
        int(size) if size else None,
        choose_device(arguments.device),
        seed,
        pretrained=False,
    )
    recipe = Recipe(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        augmentation=not arguments.no_augmentation,
        seed=seed,
    )
    processor = time.process_time()
    report = fit(network, LabelledImages(images, train[:count]), None, recipe)
    processor = time.process_time() - processor
    test = network.read(LabelledImages(images, images.test[: arguments.test_images]), lambda: False)
    begun = time.monotonic()
    metrics = network.evaluate(test)
    evaluation = time.monotonic() - begun
    row = (
        network_name,
        str(count),
        str(seed),
        str(report.plan.epochs),
        str(report.plan.batch_size),
        f"{report.plan.learning_rate:g}",
        f"{report.losses[-1]:.2f}",
        f"{metrics.values['map_50']:.3f}",
        f"{metrics.values['map']:.3f}",
        ", ".join(f"{name} {c.score:.2f}" for name, c in metrics.per_class.items()),
        f"{report.seconds:.0f}",
        f"{processor:.0f}",
        f"{evaluation:.1f}",
    )
    print_row(row)
    if arguments.regions:
        regions(network, test)


def regions(network: TaskNetwork, images: PreparedImages) -> None:
    """Whether the regions' pseudo-labels match the classes in the image.

    For several numbers of most confident boxes: how many there are above the minimum score, which
    share of an image's classes is some box's pseudo-label (recall), and which share of the
    pseudo-labels is among the image's classes (precision).
    """
    box_regions.MAX_REGIONS = 100_000
    vectors: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    for batch, of_batch in images.batches(torch.split(torch.arange(len(images)), 16)):
        vectors += network.predict(batch).regions
        targets += of_batch
    true = torch.stack([network.count_classes(target) > 0 for target in targets])
    print("\n| boxes at most | median number | recall | precision |\n|---|---|---|---|")
    for most in (1, 10, 25, 50, 100, 200, 400, 100_000):
        named = torch.stack(
            [torch.bincount(v[:most].argmax(1), minlength=true.shape[1]) > 0 for v in vectors]
        )
        right = float((named & true).sum())
        number = float(torch.tensor([len(v[:most]) for v in vectors]).float().median())
        shares = f"{right / true.sum():.2f} | {right / named.sum():.2f}"
        print(f"| {most} | {number:.0f} | {shares} |", flush=True)


def main() -> None:
    parser = training_parser(
        __doc__, "bccd.zip", ["ssdlite320_mobilenet_v3_large:224"], [20, 80], 72
    )
    parser.add_argument("--regions", action="store_true", help="also evaluate the regions")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train_each(arguments, COLUMNS, measure)


if __name__ == "__main__":
    main()
