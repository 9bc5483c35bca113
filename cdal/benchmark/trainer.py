"""Trains and measures the networks of a simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from cdal.benchmark.materials import Materials
from cdal.benchmark.noise import Noise
from cdal.benchmark.settings import Settings
from cdal.benchmark.stopwatch import Stopwatch
from cdal.benchmark.trained import Trained, findings
from cdal.models import NETWORKS, Recipe, TaskNetwork, make_network


class Trainer:
    """Makes networks that differ by nothing but their images and the seed."""

    def __init__(self, settings: Settings, materials: Materials) -> None:
        self._settings = settings
        self._materials = materials

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
        materials = self._materials
        watch = Stopwatch(materials.device)
        with watch.part("train"):
            network = start or new_network(
                self._settings, materials.data.classes, materials.device, seed
            )
        images = materials.pool.take(rows)
        if self._settings.noise:
            noise = Noise(self._settings.task, materials.annotated, self._settings.noise, seed)
            images = images.relabelled(noise, network.count_classes)
        with watch.part("train"):
            report = network.fit(
                images, None, recipe(self._settings, seed), lambda told: progress(told.share)
            )
        with watch.part("evaluate"):
            metrics = network.evaluate(materials.test)
        return Trained(network, findings(report, metrics), watch.seconds("train", "evaluate"))

    def work(self, labelled: int) -> float:
        """About how long such a step takes, in forward passes of an image."""
        settings, materials = self._settings, self._materials
        plan = recipe(settings, 0).plan(
            labelled,
            materials.device,
            settings.image_size,
            settings.pretrained,
            NETWORKS[settings.task].defaults,
        )
        return 3.0 * labelled * plan.epochs + len(materials.pool) + len(materials.test)


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
