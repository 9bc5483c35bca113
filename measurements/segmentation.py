"""Quality and seconds of training from scratch on a few CamVid images; the cost of label maps.

python measurements/segmentation.py --images 40 120 --networks lraspp_mobilenet_v3_large:192
python measurements/segmentation.py --speed
python measurements/segmentation.py --maps --epochs 4
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from shared import print_header, print_row, train_each, training_parser
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from cdal.backend.annotations.masks import enlarge
from cdal.datasets import Example, ImageSet, LabelledImages, open_images
from cdal.models import Recipe, SegmentationNetwork, choose_device, fit, make_network
from cdal.models.predictions import IGNORED
from cdal.models.recipe import class_weights
from cdal.models.segmentation import network
from cdal.models.segmentation.label_maps import label_map

SPEED_COLUMNS = (
    "network:size", "forward", "predict and findings", "label maps",
    "label maps by argmax",
)  # fmt: skip

COLUMNS = (
    "network:size", "images", "seed", "epochs", "steps", "rate", "training loss", "test mIoU",
    "test accuracy", "test loss", "seconds", "CPU seconds",
)  # fmt: skip


def drawn(examples: tuple[Example, ...], count: int, seed: int) -> list[Example]:
    """A random sample of examples; a larger sample begins with the smaller one."""
    return random.Random(seed).sample(examples, len(examples))[:count]


def network_of(name: str, images: ImageSet, device: str, seed: int = 0) -> SegmentationNetwork:
    """A new network, given as name or name:side."""
    architecture, _, size = name.partition(":")
    network = make_network(
        task="segmentation",
        architecture=architecture,
        classes=images.classes,
        image_size=int(size) if size else None,
        device=choose_device(device),
        seed=seed,
        pretrained=False,
    )
    assert isinstance(network, SegmentationNetwork)
    return network


def measure(
    images: ImageSet, arguments: argparse.Namespace, name: str, count: int, seed: int
) -> None:
    recipe = Recipe(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        label_smoothing=arguments.label_smoothing,
        weight_decay=arguments.weight_decay,
        class_weights=arguments.weights != "none",
        augmentation=not arguments.no_augmentation,
        seed=seed,
    )
    network = network_of(name, images, arguments.device, seed)
    train = drawn(images.train, count, seed)
    split = count // 5 if arguments.held_out else 0
    processor = time.process_time()
    report = fit(
        network,
        LabelledImages(images, train[split:]),
        LabelledImages(images, train[:split]) if split else None,
        recipe,
    )
    processor = time.process_time() - processor
    test = drawn(images.test, arguments.test_images, seed=0)
    metrics = network.evaluate(LabelledImages(images, test))
    row = (
        name,
        str(count),
        str(seed),
        str(report.plan.epochs),
        str(report.plan.steps),
        f"{report.plan.learning_rate:g}",
        f"{report.losses[-1]:.2f}",
        f"{metrics.values['miou']:.3f}",
        f"{metrics.values['accuracy']:.3f}",
        f"{metrics.values['loss']:.2f}",
        f"{report.seconds:.0f}",
        f"{processor:.0f}",
    )
    print_row(row)
    if arguments.classes:
        print(
            {key: score.score and round(score.score, 2) for key, score in metrics.per_class.items()}
        )


def speed(arguments: argparse.Namespace, images: ImageSet, name: str) -> None:
    """Processor milliseconds per image: a bare forward pass, predicting, label maps."""
    network = network_of(name, images, arguments.device)
    fit(
        network,
        LabelledImages(images, drawn(images.train, 40, 0)),
        None,
        Recipe(epochs=arguments.epochs),
    )  # since the time for a label map depends on where in the image each class is likely
    test = LabelledImages(images, drawn(images.test, 16, 0))
    batch = torch.stack([network.prepare(test[index][0]) for index in range(len(test))])
    cells = [name, *(f"{cost:.1f}" for cost in _costs(network, batch))]
    print_row(cells)


def maps(arguments: argparse.Namespace, images: ImageSet, name: str) -> None:
    """The quality of label maps made at the network's size and enlarged to the image's."""
    network = network_of(name, images, arguments.device)
    fit(
        network,
        LabelledImages(images, drawn(images.train, 60, 0)),
        None,
        Recipe(epochs=arguments.epochs),
    )
    test = LabelledImages(images, drawn(images.test, arguments.test_images, seed=0))
    at_once, enlarged = (
        MulticlassJaccardIndex(len(network.classes), ignore_index=IGNORED) for _ in range(2)
    )
    same = pixels = 0
    for index in range(len(test)):
        image, mask = test[index]
        size = mask.shape[0], mask.shape[1]
        predicted = network.predict(network.prepare(image)[None])
        direct = label_map(predicted.logits[0], size)
        small = label_map(predicted.logits[0], (network.image_size, network.image_size))
        smooth = torch.from_numpy(enlarge(small.numpy(), size))
        at_once.update(direct.long(), mask.long())
        enlarged.update(smooth.long(), mask.long())
        same += int((direct == smooth).sum())
        pixels += mask.numel()
    print(
        f"{name}: mIoU {float(at_once.compute()):.4f} at the image's size, "
        f"{float(enlarged.compute()):.4f} enlarged; {same / pixels:.1%} of the pixels are the same"
    )


def _costs(network: SegmentationNetwork, batch: Tensor) -> list[float]:
    size = (network.image_size, network.image_size)
    logits = network.predict(batch).logits
    return [
        _milliseconds(work, len(batch))
        for work in (
            lambda: _forward(network, batch),
            lambda: network.predict(batch).findings(),
            lambda: [label_map(image, size) for image in logits],
            lambda: [_plain_label_map(image, size) for image in logits],
        )
    ]


def _plain_label_map(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return network.enlarge(logits[None], size)[0].argmax(0).to(torch.uint8)


@torch.inference_mode()
def _forward(network: SegmentationNetwork, batch: Tensor) -> None:
    network.module(network.normalise(batch))


def _milliseconds(work: Callable[[], object], images: int, repeats: int = 7) -> float:
    seconds = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return 1000 * median(seconds[1:]) / images


def main() -> None:
    parser = training_parser(
        __doc__, "camvid.zip", ["lraspp_mobilenet_v3_large:192"], [40, 120], 233
    )
    parser.add_argument("--label-smoothing", type=float)
    parser.add_argument("--weights", choices=("root", "inverse", "none"), default="root")
    parser.add_argument("--held-out", action="store_true", help="hold out a fifth and measure it")
    parser.add_argument("--classes", action="store_true", help="also the IoU of each class")
    parser.add_argument("--speed", action="store_true", help="only the speed of prediction")
    parser.add_argument("--maps", action="store_true", help="only the quality of label maps")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.weights == "inverse":
        vars(network)["class_weights"] = partial(class_weights, power=1.0)
    images = open_images(arguments.data, "segmentation")
    if arguments.maps:
        for name in arguments.networks:
            maps(arguments, images, name)
        return
    if arguments.speed:
        print_header(SPEED_COLUMNS)
        for name in arguments.networks:
            speed(arguments, images, name)
        return
    train_each(arguments, COLUMNS, partial(measure, images))


if __name__ == "__main__":
    main()
