"""The training loop: AdamW, a linear warm-up, then a half-cosine decay. Heads have their own.

The last weights are kept. With few held-out images, the best epoch on them is mostly a lucky one,
and lucky epochs come early: see `measurements/kept_epoch.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Generator, Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from cdal.models.data import Dataset
from cdal.models.devices import free_memory, seeded
from cdal.models.errors import ModelError, Stopped
from cdal.models.features import LabelledFeatures
from cdal.models.head import HeadNetwork, fit_head
from cdal.models.network import TaskNetwork
from cdal.models.peers import Peers, average_gradients, total_of
from cdal.models.recipe import Plan, Recipe, learning_rate_share
from cdal.models.reports import FitProgress, FitReport, Metrics

READING = 0.1
"""The share of the progress attributed to reading the images."""


class Companion(Protocol):
    """What learns beside a network, in the same steps, from the network's own forward passes."""

    @property
    def module(self) -> nn.Module:
        """Its layers."""
        ...

    def loss(self, targets: Sequence[Tensor], share: float) -> Tensor:
        """What is added to the loss of the batch that the network has just seen.

        Args:
            targets: of the batch.
            share: of the training that is done.
        """
        ...


def fit(
    network: TaskNetwork,
    train: Dataset | LabelledFeatures,
    held_out: Dataset | LabelledFeatures | None,
    recipe: Recipe,
    progress: Callable[[FitProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    companion: Companion | None = None,
    peers: Peers | None = None,
) -> FitReport:
    """Train a network, starting from its current weights; only its head if its backbone is frozen.

    Args:
        network: is changed in place.
        train: the images to learn from; a head also takes their features.
        held_out: the images to measure on, after each epoch of all weights or once for a head; None
            or empty: nothing is measured.
        recipe: if it has no learning rate, the architecture's own is used.
        progress: called after each epoch, and about once per second.
        stop: called before each step; True stops the training.
        companion: what learns beside the network, if all of its weights are trained.
        peers: those that train copies of the network, on other images, at the same time. The batch
            size is that of all together. Only the one that is given held-out images measures.

    Raises:
        ModelError: there are no images to learn from, they are features that the network does not
            take, or the loss is not finite.
        Stopped: ``stop`` returned True; the network keeps the weights of that step.
    """
    if len(train) == 0:
        raise ModelError("There are no labelled images to learn from.")
    if isinstance(network, HeadNetwork):
        return fit_head(network, train, held_out, recipe, progress, stop)
    if isinstance(train, LabelledFeatures) or isinstance(held_out, LabelledFeatures):
        raise ModelError(f"{network.manifest.architecture} learns from images, not from features.")
    return _fit_all(network, train, held_out, recipe, progress, stop, companion, peers)


def _fit_all(
    network: TaskNetwork,
    train: Dataset,
    held_out: Dataset | None,
    recipe: Recipe,
    progress: Callable[[FitProgress], None],
    stop: Callable[[], bool],
    companion: Companion | None,
    peers: Peers | None,
) -> FitReport:
    """Train all weights, see ``fit``."""
    entry = network.entry
    rate = entry.fine_tuning_rate if network.manifest.pretrained else entry.learning_rate
    if recipe.learning_rate is None and rate is not None:
        recipe = replace(recipe, learning_rate=rate)
    started = time.monotonic()
    plan = recipe.plan(
        len(train) if peers is None else total_of(peers, len(train)),
        network.device,
        network.image_size,
        network.manifest.pretrained,
        network.defaults,
    )
    reporter = _ProgressReporter(plan, progress)
    images = network.read(train, stop, reporter.reading)
    measured = network.read(held_out, stop) if held_out is not None and len(held_out) else None
    counts = images.class_counts
    step = _Stepper(
        network, counts if peers is None else peers.sum(counts), recipe, plan, companion, peers
    )
    # Peers draw differently, since each has images of its own.
    seed = recipe.seed if peers is None else recipe.seed + peers.rank
    draws = Generator().manual_seed(seed)
    losses: list[float] = []
    history: list[Metrics] = []
    try:
        with seeded(seed, network.device):
            for epoch in range(1, plan.epochs + 1):
                network.module.train()
                order = batch_order(len(images), plan.steps_per_epoch, draws)
                total = torch.zeros((), device=network.device)
                for number, (batch, targets) in enumerate(images.batches(order)):
                    if stop():
                        raise Stopped
                    batch = batch.to(network.device)
                    if recipe.augmentation:
                        batch, targets = network.augment(batch, targets, draws)
                    total += step(batch, targets)
                    reporter.stepped(epoch, number + 1)
                losses.append(float(total) / len(order))
                if not math.isfinite(losses[-1]):
                    raise ModelError(
                        f"The loss is not finite in epoch {epoch}; a lower learning_rate may help."
                    )
                network.module.eval()
                if measured:
                    history.append(network.evaluate(measured, stop))
                reporter.finished(epoch, losses[-1], history[-1] if history else None)
    finally:
        network.module.eval()
    return FitReport(
        recipe=recipe,
        plan=plan,
        images=len(images),
        held_out_images=0 if measured is None else len(measured),
        seconds=time.monotonic() - started,
        losses=tuple(losses),
        held_out=tuple(metrics.main for metrics in history),
        metrics=history[-1] if history else None,
    )


def batch_order(images: int, steps: int, draws: Generator) -> tuple[Tensor, ...]:
    """A random order of all images, in ``steps`` batches of nearly equal size.

    Batch normalisation cannot train on a single image. Equal sizes avoid a last batch of one image;
    if there is only one image, it is used twice.
    """
    order = torch.randperm(images, generator=draws)
    return (order if images > 1 else order.repeat(2)).tensor_split(steps)


class _Stepper:
    """An optimiser step, with mixed precision, the learning rate schedule and batch splitting."""

    def __init__(
        self,
        network: TaskNetwork,
        counts: Tensor,
        recipe: Recipe,
        plan: Plan,
        companion: Companion | None = None,
        peers: Peers | None = None,
    ) -> None:
        self._network = network
        self._peers = peers
        self._companion = companion
        self._steps = plan.steps
        self._objective = network.objective(counts, recipe)
        self._mixed = plan.mixed_precision
        groups = parameter_groups(network.module, recipe.weight_decay)
        if companion is not None:
            groups += parameter_groups(companion.module, recipe.weight_decay)
        self._optimiser = AdamW(groups, lr=plan.learning_rate)
        self._parts = 1
        self._schedule = LambdaLR(
            self._optimiser,
            lambda step: learning_rate_share(step, plan.steps, recipe.warmup),
        )
        # float16 needs its gradients scaled; bfloat16 has the range of float32.
        half = network.autocast().fast_dtype
        self._scaler = torch.amp.GradScaler(
            network.device.type, enabled=self._mixed and half == torch.float16
        )

    def __call__(self, images: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Take one step and return its loss, a scalar on the device.

        If the device runs out of memory, this batch and all later ones are split in halves until
        they fit: the gradients of the parts add up to nearly those of the whole batch.
        """
        while (loss := self._gradients(images, targets)) is None:
            self._parts *= 2
            free_memory()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._schedule.step()
        return loss

    def _gradients(self, images: Tensor, targets: Sequence[Tensor]) -> Tensor | None:
        """Compute the loss and, in place, everybody's mean gradients.

        None if they do not fit into somebody's memory: one who split its batches alone would wait
        for the others for ever.
        """
        loss = self._own_gradients(images, targets)
        if self._peers is None:
            return loss
        if total_of(self._peers, loss is not None) < self._peers.count:
            return None
        average_gradients(self._peers, self._network.module.parameters())
        return loss

    def _own_gradients(self, images: Tensor, targets: Sequence[Tensor]) -> Tensor | None:
        """Compute the loss and, in place, its gradients; None if they do not fit into memory."""
        self._optimiser.zero_grad(set_to_none=True)
        # Batch normalisation cannot train on a single image.
        parts = max(1, min(self._parts, len(images) // 2))
        total = torch.zeros((), device=self._network.device)
        try:
            for rows in torch.arange(len(images)).tensor_split(parts):
                some = slice(int(rows[0]), int(rows[-1]) + 1)
                with self._network.autocast(self._mixed):
                    loss = self._objective(images[some], targets[some])
                    if self._companion is not None:
                        done = self._schedule.last_epoch / self._steps
                        loss = loss + self._companion.loss(targets[some], done)
                    loss = loss * (len(rows) / len(images))
                torch.autograd.backward(self._scaler.scale(loss))
                total += loss.detach()
        except torch.OutOfMemoryError:
            if 2 * parts > len(images) // 2:
                raise
            return None
        return total


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameters with weight decay (matrices, convolutions) and without (biases, norms)."""
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


class _ProgressReporter:
    """Reports the progress of a training after each epoch, and about once per second."""

    def __init__(self, plan: Plan, progress: Callable[[FitProgress], None]) -> None:
        self._plan = plan
        self._progress = progress
        self._reported_at = time.monotonic()
        self._loss: float | None = None
        self._metric: float | None = None

    def reading(self, share: float) -> None:
        self._report(0, READING * share)

    def stepped(self, epoch: int, steps: int) -> None:
        done = (epoch - 1) * self._plan.steps_per_epoch + steps
        self._report(epoch, READING + (1 - READING) * done / self._plan.steps)

    def finished(self, epoch: int, loss: float, metrics: Metrics | None) -> None:
        self._loss = loss
        self._metric = None if metrics is None else metrics.main
        self._report(epoch, READING + (1 - READING) * epoch / self._plan.epochs, at_once=True)

    def _report(self, epoch: int, share: float, at_once: bool = False) -> None:
        if at_once or time.monotonic() - self._reported_at >= 1:
            self._reported_at = time.monotonic()
            self._progress(FitProgress(epoch, self._plan.epochs, share, self._loss, self._metric))
