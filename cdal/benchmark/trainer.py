"""Trains and measures the networks of a simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cdal.benchmark.folder import finite, read_json, write_json
from cdal.benchmark.loaded_data import Loaded, LoadedData
from cdal.benchmark.noise import Noise
from cdal.benchmark.settings import Settings
from cdal.benchmark.stopwatch import Stopwatch
from cdal.benchmark.super_classes import super_classes_of
from cdal.benchmark.voc_metrics import measure_by_voc
from cdal.models import (
    FitReport,
    Metrics,
    Recipe,
    TaskNetwork,
    fit,
    load_network,
    make_network,
    network_class,
)
from cdal.models.classification.head import ClassificationHead
from cdal.models.classification.logistic import ITERATIONS
from cdal.models.detection.network import DetectionNetwork

FILE = "trained.json"
"""Written last in the folder of a kept network."""


class Trainer:
    """Trains networks that differ only by their images and seed."""

    def __init__(self, settings: Settings, loaded: LoadedData) -> None:
        self._settings = settings
        self._loaded = loaded

    def train(
        self,
        rows: Sequence[int],
        seed: int,
        progress: Callable[[float], None],
        start: TaskNetwork | None = None,
    ) -> Trained:
        """Train a network on these images of the pool, and measure it on the test images.

        Args:
            rows: images of the pool, in the order in which they were labelled.
            seed: of the initial weights, and of all that is random in the training.
            progress: called with the share of the training that is done.
            start: a network to continue training; None for a new one.
        """
        loaded = self._loaded
        watch = Stopwatch(loaded.device)
        with watch.part("train"):
            network = start or self.new_network(seed)
        images = self.labelled(rows, seed, network)
        with watch.part("train"):
            report = fit(
                network,
                images,
                None,
                self.recipe(seed),
                lambda done: progress(done.share),
            )
        with watch.part("evaluate"):
            if loaded.difficult is not None and isinstance(network, DetectionNetwork):
                metrics = measure_by_voc(
                    network, network.examples(loaded.test, lambda: False), loaded.difficult
                )
            else:
                metrics = network.evaluate(loaded.test)
        return Trained(network, results_of(report, metrics), watch.seconds("train", "evaluate"))

    def new_network(self, seed: int) -> TaskNetwork:
        """A new network; the same seed gives the same weights."""
        return new_network(self._settings, self._loaded.data.classes, self._loaded.device, seed)

    def recipe(self, seed: int) -> Recipe:
        """The recipe of each training."""
        return recipe(self._settings, seed)

    def labelled(self, rows: Sequence[int], seed: int, network: TaskNetwork) -> Loaded:
        """These images of the pool with the labels that annotators give them."""
        images: Loaded = self._loaded.pool.take(rows)
        if self._settings.noise:
            noise = Noise(
                self._settings.task,
                self._loaded.annotated,
                self._settings.noise,
                seed,
                super_classes_of(self._loaded.data.classes),
            )
            images = images.relabelled(noise, network.count_classes)
        return images

    def work(self, labelled: int) -> float:
        """About how long a step with this many labels takes, in forward passes of one image.

        Those of a head begin with the image's features.
        """
        settings, loaded = self._settings, self._loaded
        kind = network_class(settings.task, settings.network)
        plan = recipe(settings, 0).plan(
            labelled, loaded.device, settings.image_size, settings.pretrained, kind.defaults
        )
        # Logistic regression sees all images in each of its iterations.
        epochs = ITERATIONS if kind is ClassificationHead else plan.epochs
        return 3.0 * labelled * epochs + len(loaded.pool) + len(loaded.test)


def recipe(settings: Settings, seed: int) -> Recipe:
    """The recipe of each training."""
    return Recipe(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed,
    )


def new_network(
    settings: Settings, classes: Sequence[str], device: torch.device, seed: int
) -> TaskNetwork:
    """A new network; the same seed gives the same weights."""
    return make_network(
        settings.task,
        settings.network,
        classes,
        settings.image_size,
        device,
        seed,
        "auto" if settings.pretrained else False,
        tile=settings.tile,
    )


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network and how good it is.

    Attributes:
        network: the trained network.
        results: "metrics" on the test images, "training", and "trained", the number of images
            trained on, counted once per epoch; JSON data.
        seconds: by part.
    """

    network: TaskNetwork
    results: dict[str, Any]
    seconds: dict[str, float]

    def save(self, folder: Path) -> None:
        """Keep it in a new folder."""
        self.network.save(folder)
        # Last: a folder without this file was left by a process that ended.
        write_json(folder / FILE, {"found": self.results, "seconds": self.seconds})

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Trained | None:
        """Read what ``save`` kept; None if it is absent or incomplete."""
        if not (folder / FILE).exists():
            return None
        kept = read_json(folder / FILE)
        return cls(load_network(folder, device), kept["found"], kept["seconds"])


def results_of(report: FitReport, metrics: Metrics) -> dict[str, Any]:
    """The results of a training that are kept, as JSON data."""
    measured = metrics.to_dict()
    kept = ("main_name", "values", "per_class")
    return {
        "metrics": finite({name: measured[name] for name in kept}),
        "training": finite(
            {
                "epochs": report.plan.epochs,
                "batch_size": report.plan.batch_size,
                "learning_rate": report.plan.learning_rate,
                "loss": report.losses[-1],
            }
        ),
        "trained": report.images * report.plan.epochs,
    }
