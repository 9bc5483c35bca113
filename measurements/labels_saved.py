"""Check the project page's estimate of the labels saved against the truth, in simulated projects.

    python measurements/labels_saved.py --images ../shared/data/cifar10.zip --features features

In each run a share of every round is drawn at random, as with the setting `random_share`, and a
selector picks the others. The estimate is made of the held-out random labels, as the backend makes
it (`cdal/backend/loop/labels_saved.py`); the truth is the same figure, of the same models, measured
on images of the pool that were set aside. The heads learn from kept features.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from shared import print_header, print_row, report, say

from cdal.backend.loop.labels_saved import (
    LEAST_IMAGES,
    Measured,
    draw_samples,
    estimate,
    labels_needed,
)
from cdal.benchmark.data_set import open_data_set
from cdal.benchmark.loaded_data import LoadedFeatures
from cdal.benchmark.scores import score
from cdal.mixture_kind import MixtureKind
from cdal.models import Recipe, choose_device, fit, make_network
from cdal.models.backbone import DEFAULT_BACKBONE
from cdal.models.classification.head import ClassificationHead
from cdal.models.feature_store import FeatureStore
from cdal.selectors import make_selector


@dataclass(frozen=True, slots=True)
class Rounds:
    """The sizes of a simulated project.

    Attributes:
        first: images of the first round, all drawn at random.
        budget: images of each further round.
        count: number of further rounds.
        random_share: of each further round, drawn at random.
        held_out: share of the labelled images that no model learns from.
    """

    first: int
    budget: int
    count: int
    random_share: float
    held_out: float


@dataclass(frozen=True, slots=True)
class Project:
    """What a run ends with.

    Attributes:
        curve: the labels of each model version, and whether it is right about each image, (N,).
        random: the same of the model that learnt from the random labels alone.
        measured: rows of the held-out images that were drawn at random.
    """

    curve: list[tuple[int, npt.NDArray[np.bool_]]]
    random: tuple[int, npt.NDArray[np.bool_]]
    measured: npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="labelled images, any layout")
    parser.add_argument("--features", type=Path, required=True, help="where features are kept")
    parser.add_argument("--limit", type=int, help="images, drawn")
    parser.add_argument("--set-aside", type=int, default=1000, help="images for the truth")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--selector", default="cdal-cs")
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--random-share", type=float, default=0.2)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    rounds = Rounds(options.first, options.budget, options.rounds, options.random_share, 0.2)
    head, images = read(options)
    print_header(["run", "random labels", "held out", "saved", "90% interval", "truth", "covered"])
    found: list[dict[str, Any]] = []
    for seed in range(options.runs):
        project = simulate(head, images, rounds, options.selector, options.set_aside, seed)
        if len(project.measured) < LEAST_IMAGES:
            say(f"run {seed}: only {len(project.measured)} images to measure on")
            continue
        found.append(compare(project, aside(len(images), options.set_aside, seed)))
        print_row([f"{seed}", *cells(found[-1])])
    covered = sum(each["covered"] for each in found)
    report("intervals that cover the truth", f"{covered} of {len(found)}")
    errors = [each["saved"] - each["truth"] for each in found]
    report("estimate − truth", f"mean {fmean(errors):+.1f}, median {median(errors):+.1f} labels")
    report("truth", f"mean {fmean(each['truth'] for each in found):+.1f} labels saved")
    report("processor time", f"{time.process_time():.0f} s")


def read(options: argparse.Namespace) -> tuple[ClassificationHead, LoadedFeatures]:
    """A head, and the features of the training images."""
    data = open_data_set(options.images, "classification", "ignore").limited(options.limit, 1)
    device = choose_device("auto")
    head = make_network(
        data.task, DEFAULT_BACKBONE, data.classes, options.image_size or 160, device
    )
    assert isinstance(head, ClassificationHead)
    return head, LoadedFeatures.read(data.pool, head, FeatureStore(options.features, 2**34))


def aside(count: int, size: int, seed: int) -> npt.NDArray[np.int64]:
    """The rows that are set aside, for the truth."""
    return np.random.default_rng([seed, 1]).permutation(count)[:size]


def simulate(
    head: ClassificationHead,
    images: LoadedFeatures,
    rounds: Rounds,
    selector: str,
    set_aside: int,
    seed: int,
) -> Project:
    """Run a project, and train a model on its random labels alone."""
    draws = np.random.default_rng([seed, 0])
    taken = np.zeros(len(images), dtype=bool)
    taken[aside(len(images), set_aside, seed)] = True
    held_out = draws.random(len(images)) < rounds.held_out

    def draw(count: int) -> list[int]:
        rows: list[int] = draws.permutation(np.flatnonzero(~taken))[:count].tolist()
        taken[rows] = True
        return rows

    random = draw(rounds.first)
    labelled = list(random)
    curve = []
    for number in range(rounds.count + 1):
        curve.append((len(labelled), train(head, images, labelled, held_out)))
        if number < rounds.count:
            drawn = draw(round(rounds.random_share * rounds.budget))
            kind = MixtureKind("image")
            pool = score(head, images, [kind]).pool(kind, np.flatnonzero(taken).tolist())
            picked = make_selector(selector).select(pool, rounds.budget - len(drawn), seed).indices
            taken[picked] = True
            random += drawn
            labelled += [*drawn, *picked]
    alone = train(head, images, random, held_out)
    return Project(curve, (len(random), alone), np.array([row for row in random if held_out[row]]))


def train(
    head: ClassificationHead,
    images: LoadedFeatures,
    labelled: list[int],
    held_out: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Train the head on those of the labelled images that are not held out.

    Returns:
        Whether it is right about each image, (N,).
    """
    fit(head, images.take([row for row in labelled if not held_out[row]]), None, Recipe())
    predicted = head.judge(images.features).probabilities.argmax(1).cpu()
    right: npt.NDArray[np.bool_] = (predicted == torch.stack(list(images.targets))).numpy()
    return right


def compare(project: Project, set_aside: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The estimate of a project, and the truth."""
    samples = draw_samples(len(project.measured), "classification")

    def measured(labels: int, right: npt.NDArray[np.bool_]) -> Measured:
        return Measured(labels, samples @ right[project.measured] / len(project.measured))

    versions = [measured(*version) for version in project.curve]
    found = estimate(versions, measured(*project.random), "accuracy", len(project.measured))
    labels = [count for count, _ in project.curve]
    heights = [float(right[set_aside].mean()) for _, right in project.curve]
    wanted = float(project.random[1][set_aside].mean())
    truth = project.random[0] - labels_needed(labels, heights, wanted)
    return {**found, "truth": truth, "covered": found["low"] <= truth <= found["high"]}


def cells(found: dict[str, Any]) -> list[str]:
    """A row of the table."""
    return [
        f"{found['random']['labels']}",
        f"{found['images']}",
        f"{found['saved']:.0f}",
        f"{found['low']:.0f} to {found['high']:.0f}",
        f"{found['truth']:.0f}",
        "yes" if found["covered"] else "no",
    ]


if __name__ == "__main__":
    main()
