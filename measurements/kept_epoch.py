"""Which epoch's weights to keep: the best on the held-out images, or the last.

    python measurements/kept_epoch.py --images cifar10.zip --network resnet18:32 --labels 20 50 100
    python measurements/kept_epoch.py --images cifar10.zip --network efficientnet_lite0:64 \
        --pretrained --labels 300 --learning-rates 1e-4 3e-4 1e-3 --seeds 2

Draws labelled images, holds out a fifth of them as the backend does, trains to the end, and
measures every epoch on test images as well. This shows what each rule would have kept: "best" is
the best epoch on the held-out images, the last among equals, and training ends when half of the
epochs have passed without a better one; "last" trains to the end. Means over the seeds, in per
cent of the main metric, with the standard error of their difference. A head, `timm:NAME:side`, is
measured once, at its end. Processor seconds are those of training, without what is measured.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

import torch

from cdal.datasets import ImageSet, LabelledImages, open_images
from cdal.models import Recipe, choose_device, fit, is_backbone, make_network
from cdal.models.data import Dataset
from cdal.models.reports import Metrics

COLUMNS = (
    "labels", "held out", "rate", "epochs", "CPU seconds", "best", "last", "gain",
    "least of best", "least of last", "best below half of last", "epochs that best trains",
)  # fmt: skip

HELD_OUT = 0.2

PATIENCE = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="labelled images, any layout")
    parser.add_argument("--network", required=True, help="name:side")
    parser.add_argument("--pretrained", action="store_true", help="start from published weights")
    parser.add_argument("--labels", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", default=[None], help="default: the recipe's"
    )
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--test-images", type=int, default=300)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    if not options.network.rpartition(":")[2].isdecimal():
        parser.error("--network must be name:side, such as resnet18:32")
    torch.set_num_threads(options.threads)
    images = open_images(options.images)
    drawn = random.Random(0).sample(images.test, min(options.test_images, len(images.test)))
    test = LabelledImages(images, drawn)
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for count in options.labels:
        for rate in options.learning_rates:
            runs = [Run(images, test, count, rate, seed, options) for seed in range(options.seeds)]
            print(f"| {count} | {round(HELD_OUT * count)} | {row(runs)} |", flush=True)


class Run:
    """One training, to the end.

    Attributes:
        held_out: the main metric on the held-out images after each epoch.
        tested: the same on the test images.
        patience: the epochs without a better one after which "best" ends the training.
        plan: what was trained.
        seconds: of the processor, without those of measuring.
    """

    def __init__(
        self,
        images: ImageSet,
        test: LabelledImages,
        count: int,
        rate: float | None,
        seed: int,
        options: argparse.Namespace,
    ) -> None:
        drawn = random.Random(seed).sample(images.train, count)
        held = round(HELD_OUT * count)
        name, _, side = options.network.rpartition(":")
        network = make_network(
            images.task,
            name,
            images.classes,
            int(side),
            choose_device(options.device),
            seed=seed,
            pretrained=options.pretrained or is_backbone(name),
        )
        self.tested: list[float] = []
        measured = network.read(test, lambda: False)
        evaluate = network.evaluate
        measuring = 0.0

        def evaluate_both(data: Dataset, stop: Callable[[], bool]) -> Metrics:
            nonlocal measuring
            begun = time.process_time()
            self.tested.append(network.measure(measured, stop).main)
            found = evaluate(data, stop)
            measuring += time.process_time() - begun
            return found

        vars(network)["evaluate"] = evaluate_both  # called after each epoch
        begun = time.process_time()
        report = fit(
            network,
            LabelledImages(images, drawn[held:]),
            LabelledImages(images, drawn[:held]),
            Recipe(seed=seed, learning_rate=rate, epochs=options.epochs),
        )
        self.seconds = time.process_time() - begun - measuring
        self.plan = report.plan
        del vars(network)["evaluate"]  # otherwise the two would keep each other in memory
        self.held_out = report.held_out
        self.patience = max(1, round(PATIENCE * len(report.held_out)))

    def best(self) -> tuple[int, int]:
        """The epoch that "best" keeps, and the one after which it ends, both from 0."""
        kept = 0
        for epoch, metric in enumerate(self.held_out):
            if metric >= self.held_out[kept]:
                kept = epoch
            if epoch - kept >= self.patience:
                return kept, epoch
        return kept, len(self.held_out) - 1


def row(runs: Sequence[Run]) -> str:
    """The table cells for one number of labels."""
    choices = [run.best() for run in runs]
    best = [100 * run.tested[kept] for run, (kept, _) in zip(runs, choices, strict=True)]
    last = [100 * run.tested[-1] for run in runs]
    gains = [b - a for a, b in zip(best, last, strict=True)]
    error = stdev(gains) / sqrt(len(gains)) if len(gains) > 1 else 0.0
    poor = sum(a < b / 2 for a, b in zip(best, last, strict=True))
    share = mean((end + 1) / len(run.tested) for run, (_, end) in zip(runs, choices, strict=True))
    plan = runs[0].plan
    return (
        f"{plan.learning_rate:g} | {plan.epochs} | {mean(run.seconds for run in runs):.0f} | "
        f"{mean(best):.1f} | {mean(last):.1f} | {mean(gains):+.1f} ± {error:.1f} | "
        f"{min(best):.1f} | {min(last):.1f} | {poor} | {100 * share:.0f}%"
    )


if __name__ == "__main__":
    main()
