"""Full training on a Ray cluster: Ray Train starts the processes, which average their gradients."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Thread
from typing import Any

import ray
import ray.train
import torch
import torch.distributed
from ray.exceptions import RayError
from ray.train.torch import TorchTrainer
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    remove_placement_group,
)
from torch import Tensor

from cdal.allocator import keep_freed_memory
from cdal.backend.loop.engines.cluster import LOOK_SECONDS, count_of, device_for, our_errors
from cdal.backend.loop.engines.stages import PackedNetwork
from cdal.models import (
    Dataset,
    FitProgress,
    FitReport,
    ModelError,
    Recipe,
    Stopped,
    TaskNetwork,
    choose_device,
    fit,
)
from cdal.models.data import PreparedImages

FEWEST = 8
"""Images per step and process, at least: batch normalisation needs some."""

CHUNK = 256
"""Images that travel together."""

MOST_FAILURES = 3
"""How often a training may begin again because a node died."""

Chunk = tuple[Tensor, list[Tensor]]
"""Prepared images, (B, 3, S, S) uint8, and their targets."""

Chunks = Sequence["ray.ObjectRef[Chunk]"]


def fit_on_cluster(
    network: TaskNetwork,
    packed: PackedNetwork,
    train: Dataset,
    held_out: Dataset | None,
    recipe: Recipe,
    wanted_device: str,
    progress: Callable[[FitProgress], None],
    stop: Callable[[], bool],
) -> FitReport:
    """As `cdal.models.fit`, on as many GPUs or else cores as the cluster has and the batches feed.

    If a node dies, the training begins again, as it does when a worker dies.
    """
    if len(train) == 0:
        raise ModelError("There are no labelled images to learn from.")
    device = device_for(wanted_device)
    plan = recipe.plan(
        len(train),
        network.device,
        network.image_size,
        network.manifest.pretrained,
        network.defaults,
    )
    per_step = len(train) // plan.steps_per_epoch
    workers = max(1, min(count_of("GPU" if device == "cuda" else "CPU"), per_step // FEWEST))
    with our_errors():
        job = {
            "network": ray.put(packed),
            "device": device,
            "recipe": replace(recipe, epochs=plan.epochs, batch_size=plan.batch_size),
            "train": _parts(network, train, workers, stop),
            "held_out": _parts(network, held_out, 1, stop)[0] if held_out is not None else [],
        }
        run = ray.remote(num_cpus=0, max_concurrency=4)(Run).remote()
        ended = run.train.remote(job, workers)
        try:
            report, learnt = _await(run, ended, progress, stop)
        except Stopped:
            Thread(target=_cancel, args=(run, ended), name="cdal-ray-cancel", daemon=True).start()
            raise
        except BaseException:
            ray.kill(run)  # which ends what it has started
            raise
        ray.kill(run)
    weights = learnt.load(network.device).module.state_dict()
    network.module.load_state_dict(weights)
    return replace(report, images=len(train))


def _parts(
    network: TaskNetwork, data: Dataset, workers: int, stop: Callable[[], bool]
) -> list[Chunks]:
    """Each worker's share of the images, in the cluster's memory."""
    images = network.read(data, stop)
    parts: list[Chunks] = []
    for rank in range(workers):
        rows = torch.arange(rank, len(images), workers)
        order = torch.split(rows, CHUNK) if len(rows) else ()
        parts.append([ray.put(chunk) for chunk in images.batches(order)])
    return parts


def _await(
    run: Any, ended: Any, progress: Callable[[FitProgress], None], stop: Callable[[], bool]
) -> tuple[FitReport, PackedNetwork]:
    while True:
        done, _ = ray.wait([ended], timeout=LOOK_SECONDS)
        if stop():
            raise Stopped
        told = ray.get(run.told.remote())
        if told is not None:
            progress(told)
        if done:
            outcome: tuple[FitReport, PackedNetwork] = ray.get(ended)
            return outcome


def _cancel(run: Any, ended: Any) -> None:
    """End a training and free its processors.

    What Ray Train has reserved outlives it: on a cluster without Ray's dashboard, until this
    process ends. One that still waits for free processors is ended as soon as it has them.
    """
    with suppress(RayError):
        group = None
        while group is None and not ray.wait([ended], timeout=LOOK_SECONDS)[0]:
            group = ray.get(run.reserved.remote())
        ray.kill(run)  # which ends what it has started
        if group is not None:
            remove_placement_group(group)


class Run:
    """An actor that starts a training and lives as long as it: to kill it is to end it."""

    def __init__(self) -> None:
        self._reserved: PlacementGroup | None = None
        self._told: FitProgress | None = None
        self._outcome: tuple[FitReport, PackedNetwork] | None = None

    def train(self, job: Mapping[str, Any], workers: int) -> tuple[FitReport, PackedNetwork]:
        """Train, and return the report with the network."""
        ours = ray.get_runtime_context().current_actor
        with tempfile.TemporaryDirectory() as folder:  # nothing is kept there
            TorchTrainer(
                learn,
                train_loop_config={**job, "run": ours},
                scaling_config=ray.train.ScalingConfig(
                    num_workers=workers, use_gpu=job["device"] == "cuda"
                ),
                run_config=ray.train.RunConfig(
                    storage_path=folder,
                    failure_config=ray.train.FailureConfig(max_failures=MOST_FAILURES),
                ),
            ).fit()
        assert self._outcome is not None  # noqa: S101 — fit raises if a worker fails
        return self._outcome

    def begin(self, reserved: PlacementGroup | None) -> None:
        """Called by the first worker with what Ray Train has reserved for all."""
        self._reserved = reserved

    def reserved(self) -> PlacementGroup | None:
        """What is reserved; None before the workers have begun."""
        return self._reserved

    def tell(self, progress: FitProgress) -> None:
        """Called by the first worker."""
        self._told = progress

    def told(self) -> FitProgress | None:
        """The latest progress."""
        return self._told

    def finish(self, report: FitReport, packed: PackedNetwork) -> None:
        """Called by the first worker."""
        self._outcome = report, packed


def learn(job: Mapping[str, Any]) -> None:
    """What each worker does; Ray Train has connected them."""
    context = ray.train.get_context()
    rank, run = context.get_world_rank(), job["run"]
    if rank == 0:
        ray.get(run.begin.remote(get_current_placement_group()))
    packed: PackedNetwork = ray.get(job["network"])
    keep_freed_memory()  # as a worker does; this process does nothing else
    network = packed.load(choose_device(job["device"]))
    peers = Workers(rank, context.get_world_size(), network.device)
    train = _prepared(network, job["train"][rank])
    if rank != 0:
        fit(network, train, None, job["recipe"], peers=peers)
        return
    held_out = _prepared(network, job["held_out"])
    report = fit(network, train, held_out, job["recipe"], run.tell.remote, peers=peers)
    ray.get(run.finish.remote(report, PackedNetwork.of(network, packed.sources)))


def _prepared(network: TaskNetwork, chunks: Chunks) -> PreparedImages:
    """Images that were prepared by the worker that requested the training."""
    examples = [example for chunk in chunks for example in zip(*ray.get(chunk), strict=True)]
    images = PreparedImages(examples, network, memory_limit=2**62)
    for row, (image, target) in enumerate(examples):
        images.put(row, image, target)
    return images


class Workers:
    """The processes of one training, connected by torch; see `Peers`."""

    def __init__(self, rank: int, count: int, device: torch.device) -> None:
        self.rank = rank
        self.count = count
        self._device = device

    def sum(self, values: Tensor) -> Tensor:
        """The sum of everybody's values."""
        everybodys = values.to(self._device, copy=True)
        torch.distributed.all_reduce(everybodys)
        return everybodys.to(values.device)
