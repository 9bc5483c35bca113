"""What the setting pool_sample costs in accuracy: each round scores a sample of the pool.

    python measurements/pool_sample.py --seeds 5

Heads on kept features of labelled images, CIFAR-10 by default, which stand for a pool whose images
would have to be seen again in each round. The sample is that of the backend: half of it the best of
the ranking before, the others at random. Every curve begins with the same typical images.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from shared import DATA, print_header, print_row, say

from cdal.backend.loop.pool_sample import sample_of
from cdal.backend.loop.pool_scores import Scores
from cdal.datasets import LabelledImages, open_images
from cdal.mixture_kind import MixtureKind
from cdal.models import Recipe, choose_device, fit, make_network
from cdal.models.features import ImageFeatures, LabelledFeatures
from cdal.models.head import HeadNetwork
from cdal.selectors import Pool, make_selector

RANKED = 1000
"""As many images as a round ranks, see loop/select.py."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA / "cifar10.zip")
    parser.add_argument("--pool", type=int, default=4000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--selectors", nargs="+", default=["cdal-cs", "margin"])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25, 0.1, 0.05])
    parser.add_argument("--labels", nargs="+", type=int, default=[50, 100, 150, 200, 300, 400])
    parser.add_argument("--epochs", type=int, help="of a head for masks or boxes")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    images = open_images(options.data)
    network = make_network(
        images.task,
        "timm:tf_efficientnet_lite0",
        images.classes,
        options.image_size,
        device=choose_device("cpu"),
    )
    assert isinstance(network, HeadNetwork)
    draws = Random(0)  # the files are ordered by class
    train = draws.sample(images.train, min(options.pool, len(images.train)))
    pool = seen(network, LabelledImages(images, train))
    tested = draws.sample(images.test, min(options.test, len(images.test)))
    test = seen(network, LabelledImages(images, tested))
    print_header(["selector", "scored", *map(str, options.labels), "mean", "against all"])
    everything = [
        curve(network, pool, test, "random", None, s, options) for s in range(options.seeds)
    ]
    tell("random", "-", everything, everything)
    for selector in options.selectors:
        whole = None
        for share in (None, *options.shares):
            found = [
                curve(network, pool, test, selector, share, seed, options)
                for seed in range(options.seeds)
            ]
            whole = whole or found
            tell(selector, "all" if share is None else f"{share:.0%}", found, whole)


def tell(selector: str, scored: str, found: list[list[float]], whole: list[list[float]]) -> None:
    means = [statistics.fmean(column) for column in zip(*found, strict=True)]
    differences = [
        statistics.fmean(a) - statistics.fmean(b) for a, b in zip(found, whole, strict=True)
    ]
    error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
    print_row(
        [
            selector,
            scored,
            *(f"{100 * mean:.1f}" for mean in means),
            f"{100 * statistics.fmean(means):.1f}",
            f"{100 * statistics.fmean(differences):+.2f} ± {100 * error:.2f}",
        ]
    )


def seen(network: HeadNetwork, data: LabelledImages) -> LabelledFeatures:
    """What the backbone makes of images, with their labels."""
    say(f"{len(data)} images are seen")
    features: list[ImageFeatures] = []
    targets: list[torch.Tensor] = []
    for start in range(0, len(data), 64):
        rows = range(start, min(start + 64, len(data)))
        some = [network.prepare_example(*data[row]) for row in rows]
        features += network.look([image for image, _ in some])
        targets += [target for _, target in some]
    return LabelledFeatures(network.extraction, features, targets)


def curve(
    network: HeadNetwork,
    pool: LabelledFeatures,
    test: LabelledFeatures,
    selector: str,
    share: float | None,
    seed: int,
    options: argparse.Namespace,
) -> list[float]:
    """The accuracy, mIoU or mAP with so many labels."""
    untrained = {name: each.clone() for name, each in network.module.state_dict().items()}
    labelled = first_images(network, pool, options.labels[0], seed)
    ranked: list[int] = []
    found: list[float] = []
    for number, budget in enumerate(options.labels):
        if number:
            labelled += [row for row in ranked if row not in set(labelled)][
                : budget - len(labelled)
            ]
        network.module.load_state_dict(untrained)
        fit(network, pool.take(labelled), None, Recipe(options.epochs, seed=seed))
        found.append(network.evaluate(test).main)
        left = sorted(set(range(len(pool))) - set(labelled))
        sample = left
        if share is not None:
            sample = sample_of(left, ranked, [], round(share * len(pool)), f"{seed} {number}")
        ranked = rank(network, pool, selector, sample, labelled, seed + number)
    network.module.load_state_dict(untrained)
    return found


def first_images(network: HeadNetwork, pool: LabelledFeatures, count: int, seed: int) -> list[int]:
    """Typical images, the same for all curves of a seed."""
    rows = len(pool)
    unseen = Pool(
        mixtures=torch.zeros(rows, 1, 1),
        present=torch.zeros(rows, 1, dtype=torch.bool),
        labelled=torch.zeros(rows, dtype=torch.bool),
        features=network.vectors(pool.features).cpu(),
    )
    return list(make_selector("typiclust").select(unseen, count, seed).indices)


def rank(
    network: HeadNetwork,
    pool: LabelledFeatures,
    selector: str,
    sample: Sequence[int],
    labelled: Sequence[int],
    seed: int,
) -> list[int]:
    """The ranking of a sample; the labelled images are scored besides."""
    rows = [*sample, *labelled]
    some = pool.take(rows)
    kind = MixtureKind("image" if network.manifest.task == "classification" else "class")
    at_once = network.judged_at_once
    scores = Scores.concatenate(
        [
            Scores.of(
                rows[start : start + at_once],
                network.judge(some.features[start : start + at_once]),
                kind,
            )
            for start in range(0, len(rows), at_once)
        ]
    )
    known = set(labelled)
    picks = make_selector(selector).select(
        scores.pool([row in known for row in rows]), min(RANKED, len(sample)), seed
    )
    return [rows[index] for index in picks.indices]


if __name__ == "__main__":
    main()
