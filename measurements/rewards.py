"""Learning curves on kept features, to compare selectors and rewards of CDAL-RL.

python measurements/rewards.py --data ../shared/data/cifar10.zip --image-size 112 --seeds 3 \
    --selectors random cdal-cs cdal-rl cdal-rl:rewards=coverage greedy:coverage

The features are computed once; a head learns the labels after each step. Two pools: with a long
tail (800 images of the first class to 16 of the last), and balanced (220 of each). The test images
are balanced. "greedy:coverage" maximises that reward image by image, with "*entropy" weighted by
the images' entropy. Variants of CDAL-CS are in `cdal_cs.py`.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from heads import vectors
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from cdal.datasets import Example, LabelledImages, open_images
from cdal.models import choose_device, make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.classification.head import ClassificationHead
from cdal.models.classification.logistic import PENALTY, Logistic, fit_logistic, minimise
from cdal.models.recipe import class_weights
from cdal.selectors import Pool, make_selector
from cdal.selectors.diversity import DiversityEmbedding
from cdal.selectors.mixtures import mixtures_of_vectors
from cdal.selectors.typiclust import TypiClust

MOST, RAREST, BALANCED = 800, 16, 220
KEPT = (MOST, 518, 400)  # images of the first classes; 400 of the others
TEST_IMAGES = 100  # per class


@dataclass(frozen=True, slots=True)
class Course:
    """How a simulated project goes.

    Attributes:
        step: labels between two models.
        start: labels that the first model learns.
        end: labels that the last one learns.
        pool: the number of images in the pool; None: all.
        typical: whether the first images are typical ones, by TypiClust, and not random ones.
    """

    step: int = 100
    start: int = 100
    end: int = 500
    pool: int | None = None
    typical: bool = False

    @property
    def budgets(self) -> range:
        """The labels of each model."""
        return range(self.start, self.end + 1, self.step)

    def first(self, features: Tensor, seed: int) -> Tensor:
        """Which images are labelled first, of a pool with these features (N, D): (N,) bool."""
        labelled = torch.zeros(len(features), dtype=torch.bool)
        if self.typical:
            rows = TypiClust().select(unseen_pool(features), self.start, seed).indices
        else:
            draws = np.random.default_rng(1000 + seed).permutation(len(features))
            rows = draws[: self.start].tolist()
        labelled[rows] = True
        return labelled


def unseen_pool(features: Tensor) -> Pool:
    """A pool that no model has scored: nothing but features, (N, D)."""
    count = len(features)
    return Pool(
        mixtures=torch.zeros(count, 1, 1),
        present=torch.zeros(count, 1, dtype=torch.bool),
        labelled=torch.zeros(count, dtype=torch.bool),
        features=features,
    )


@dataclass(frozen=True, slots=True)
class Head:
    """A logistic regression; the defaults are those of the backend.

    Attributes:
        class_power: of a class's frequency in its weight, negated; 0: all images count the same.
        penalty: of the weights; None: the backend's.
        free_bias: whether the biases are hardly penalised, and not as much as the weights.
    """

    class_power: float = 0.5
    penalty: float | None = None
    free_bias: bool = False

    def learnt(self, x: Tensor, y: Tensor, classes: int) -> Logistic:
        weights = class_weights(torch.bincount(y, minlength=classes), self.class_power)
        if not self.free_bias:
            return fit_logistic(x, y, weights, self.penalty)
        penalty = PENALTY if self.penalty is None else self.penalty
        of_images = weights[y] / weights[y].sum()

        def loss(logits: Tensor) -> Tensor:
            return (functional.cross_entropy(logits, y, reduction="none") * of_images).sum()

        return minimise(x, classes, loss, penalty, 1e-3 * penalty)


OWN_HEAD = Head()


@dataclass(frozen=True, slots=True)
class Features:
    """Vectors (N, D) float32 and classes (N,) of the training and the test images."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def embedded(data: Path, side: int, kept: Path | None = None) -> Features:
    """The features of some images of each class; the same ones each time.

    Args:
        data: the images.
        side: as the backbone sees them.
        kept: a file from which they are read, or to which they are written if there is none yet.
    """
    if kept is not None and kept.exists():
        arrays = load_file(kept)
        return Features((arrays["x"], arrays["y"]), (arrays["test_x"], arrays["test_y"]))
    images = open_images(data, "classification")
    device = choose_device("auto")
    network = make_network(images.task, DEFAULT_BACKBONE, images.classes, side, device)
    assert isinstance(network, ClassificationHead)
    shuffle = random.Random(0).shuffle

    def some(examples: Sequence[Example], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        by_class = defaultdict(list)
        for example in examples:
            by_class[int(example.target())].append(example)
        chosen: list[Example] = []
        for index, of_class in sorted(by_class.items()):
            named = sorted(of_class, key=lambda example: example.name)
            shuffle(named)
            chosen += named[: counts[min(index, len(counts) - 1)]]
        x, y = vectors(network, network.read(LabelledImages(images, chosen), lambda: False))
        return x.half().float(), y

    train, test = some(images.train, KEPT), some(images.test, [TEST_IMAGES])
    if kept is not None:
        arrays = {"x": train[0], "y": train[1], "test_x": test[0], "test_y": test[1]}
        save_file({name: array.contiguous() for name, array in arrays.items()}, kept)
    return Features(train, test)


def rows_of(labels: Tensor, tail: bool, seed: int) -> Tensor:
    """The images of a pool, in random order."""
    draws = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    sizes = np.geomspace(MOST, RAREST, classes).round() if tail else np.full(classes, BALANCED)
    of_classes = [
        draws.permutation(np.flatnonzero(labels.numpy() == index))[: int(size)]
        for index, size in enumerate(sizes)
    ]
    return torch.from_numpy(draws.permutation(np.concatenate(of_classes)))


def curve(
    features: Features,
    tail: bool,
    seed: int,
    choose: Callable[[Pool, int, int], list[int]],
    course: Course,
    kind: Head = OWN_HEAD,
) -> tuple[list[float], float]:
    """Accuracy in percent at each number of labels, and processor seconds per selection."""
    rows = rows_of(features.train[1], tail, seed)[: course.pool]
    x, y = features.train[0][rows], features.train[1][rows]
    test, truth = features.test
    labelled = course.first(x, seed)
    accuracies, seconds = [], []
    for labels in course.budgets:
        head = kind.learnt(x[labelled], y[labelled], int(y.max()) + 1)
        right = (test @ head.weight.T + head.bias).argmax(1) == truth
        accuracies.append(100 * float(right.float().mean()))
        if labels < course.end:
            pool = pool_of((x @ head.weight.T + head.bias).softmax(1), x, labelled)
            began = time.process_time()
            labelled[choose(pool, course.step, seed)] = True
            seconds.append(time.process_time() - began)
    return accuracies, mean(seconds)


def pool_of(probabilities: Tensor, features: Tensor, labelled: Tensor) -> Pool:
    mixtures = mixtures_of_vectors(probabilities)
    best = probabilities.topk(2, 1).values
    margin, confidence = best[:, 0] - best[:, 1], best[:, 0]
    return Pool(
        mixtures=mixtures.mixtures,
        present=mixtures.present,
        labelled=labelled.clone(),
        features=features,
        probabilities=probabilities,
        uncertainties=torch.stack([entropy(probabilities), 1 - margin, 1 - confidence], 1),
        region_counts=mixtures.region_counts,
    )


def entropy(probabilities: Tensor) -> Tensor:
    bits: Tensor = torch.special.entr(probabilities).sum(1) / math.log(2)
    return bits


def chooser(name: str) -> Callable[[Pool, int, int], list[int]]:
    """What a name of the command line stands for."""
    kind, _, text = name.partition(":")
    if kind != "greedy":
        options = dict(option.split("=") for option in text.split(",")) if text else {}
        selector = make_selector(kind, options)
        return lambda pool, budget, seed: selector.select(pool, budget, seed).indices
    weighted = text == "coverage*entropy"

    def choose(pool: Pool, budget: int, seed: int) -> list[int]:  # noqa: ARG001
        assert pool.probabilities is not None
        weights = entropy(pool.probabilities) if weighted else torch.ones(len(pool))
        return cover(distances(pool), weights, pool.labelled, budget)

    return choose


def distances(pool: Pool) -> Tensor:
    """Eq. 2 between all pairs, (N, N)."""
    embedding = DiversityEmbedding.of(pool.mixtures, pool.present)
    everything = torch.arange(len(pool))
    return embedding.distances(everything, everything)


def cover(between: Tensor, weights: Tensor, labelled: Tensor, budget: int) -> list[int]:
    """Each pick takes away most of the weighted distance to the nearest centre."""
    rest = (~labelled).nonzero()[:, 0]
    nearest = between[rest][:, labelled].min(1).values
    between, weights = between[rest][:, rest], weights[rest]
    picks: list[int] = []

    def gains(columns: Tensor) -> Tensor:
        return (nearest[:, None] - between[:, columns]).clamp_(min=0).T @ weights

    # A gain only falls as picks are added, so an old one is an upper bound.
    bound = gains(torch.arange(len(rest)))
    known = torch.zeros(len(rest), dtype=torch.int64)
    while len(picks) < budget:
        top = bound.topk(min(64, len(rest))).indices
        if known[top[0]] == len(picks):
            picks.append(int(top[0]))
            bound[top[0]] = -1
            nearest = torch.minimum(nearest, between[:, top[0]])
        else:
            stale = top[known[top] < len(picks)]
            bound[stale], known[stale] = gains(stale), len(picks)
    return rest[picks].tolist()


def curve_parser(description: str | None, image_size: int, seeds: int) -> argparse.ArgumentParser:
    """The options of every measurement of curves on kept features, with these defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="images in ten classes")
    parser.add_argument("--features", type=Path, help="a file in which they are kept")
    parser.add_argument("--image-size", type=int, default=image_size)
    parser.add_argument("--seeds", type=int, default=seeds)
    return parser


def main() -> None:
    parser = curve_parser(__doc__, image_size=112, seeds=5)
    parser.add_argument("--step", type=int, default=100)
    parser.add_argument("--selectors", nargs="+", default=["random", "cdal-cs", "cdal-rl"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    features = embedded(options.data, options.image_size, options.features)
    for tail in (True, False):
        print(f"\n{'long tail' if tail else 'balanced'}: mean accuracy over the curve\n")
        print("| selector | mean | each seed | with 500 labels | seconds per selection |")
        print("|---" * 5 + "|")
        for name in options.selectors:
            curves = [
                curve(features, tail, seed, chooser(name), Course(options.step))
                for seed in range(options.seeds)
            ]
            areas = [mean(accuracies[1:]) for accuracies, _ in curves]
            each = " ".join(f"{area:.1f}" for area in areas)
            last = mean(accuracies[-1] for accuracies, _ in curves)
            cost = mean(seconds for _, seconds in curves)
            print(
                f"| `{name}` | {mean(areas):.1f} | {each} | {last:.1f} | {cost:.1f} |", flush=True
            )


if __name__ == "__main__":
    main()
