"""Trains and measures the networks of a simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cdal.benchmark.folder import finite, read_json, write_json
from cdal.benchmark.loaded_data import LoadedData
from cdal.benchmark.noise import Noise
from cdal.benchmark.settings import Settings
from cdal.benchmark.stopwatch import Stopwatch
from cdal.models import (
    NETWORKS,
    FitReport,
    Metrics,
    Recipe,
    TaskNetwork,
    fit,
    load_network,
    make_network,
)

FILE = "trained.json"
"""Written last beside a kept network."""


class Trainer:
    """Makes networks that differ by nothing but their images and the seed."""

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
        """A network that has learnt from the labels of these images of the pool, measured.

        Args:
            rows: in the order in which they were revealed.
            seed: of the weights, and of all that is random in the training.
            progress: told the share of the training that is done.
            start: a network to go on with; None: a new one.
        """
        loaded = self._loaded
        watch = Stopwatch(loaded.device)
        with watch.part("train"):
            network = start or new_network(self._settings, loaded.data.classes, loaded.device, seed)
        images = loaded.pool.take(rows)
        if self._settings.noise:
            noise = Noise(self._settings.task, loaded.annotated, self._settings.noise, seed)
            images = images.relabelled(noise, network.count_classes)
        with watch.part("train"):
            report = fit(
                network,
                images,
                None,
                recipe(self._settings, seed),
                lambda told: progress(told.share),
            )
        with watch.part("evaluate"):
            metrics = network.evaluate(loaded.test)
        return Trained(network, findings(report, metrics), watch.seconds("train", "evaluate"))

    def work(self, labelled: int) -> float:
        """About how long such a step takes, in forward passes of an image."""
        settings, loaded = self._settings, self._loaded
        plan = recipe(settings, 0).plan(
            labelled,
            loaded.device,
            settings.image_size,
            settings.pretrained,
            NETWORKS[settings.task].defaults,
        )
        return 3.0 * labelled * plan.epochs + len(loaded.pool) + len(loaded.test)


def recipe(settings: Settings, seed: int) -> Recipe:
    """How each of the networks is trained."""
    return Recipe(
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=seed,
    )


def new_network(
    settings: Settings, classes: Sequence[str], device: torch.device, seed: int
) -> TaskNetwork:
    """A network that is yet to be trained: with one seed, always the same."""
    return make_network(
        settings.task,
        settings.network,
        classes,
        settings.image_size,
        device,
        seed,
        "auto" if settings.pretrained else False,
    )


@dataclass(frozen=True, slots=True)
class Trained:
    """A network with its quality.

    Attributes:
        network: as it was trained.
        found: "metrics" on the test images, "training", and "trained", the images that it saw,
            counted once an epoch; JSON data.
        seconds: by part.
    """

    network: TaskNetwork
    found: dict[str, Any]
    seconds: dict[str, float]

    def save(self, folder: Path) -> None:
        """Keep it in a new folder."""
        self.network.save(folder)
        # Last: a folder without it is that of a process which was ended.
        write_json(folder / FILE, {"found": self.found, "seconds": self.seconds})

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Trained | None:
        """What ``save`` kept; None where it has not or not completely."""
        if not (folder / FILE).exists():
            return None
        kept = read_json(folder / FILE)
        return cls(load_network(folder, device), kept["found"], kept["seconds"])


def findings(report: FitReport, metrics: Metrics) -> dict[str, Any]:
    """What is kept of a training, as JSON data."""
    told = metrics.to_dict()
    return {
        "metrics": finite({name: told[name] for name in ("main_name", "values", "per_class")}),
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
