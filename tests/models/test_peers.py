"""Processes that train copies of a network together, here as threads."""

from __future__ import annotations

import copy
from threading import Barrier, Lock, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cdal.models import FitReport, Recipe, TaskNetwork, fit, make_network
from cdal.models.peers import average_gradients, total_of
from cdal.models.training import _Stepper


class Shared:
    """What the threads have in common."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.lock = Lock()
        self.values: list[Tensor] = []
        self.barrier = Barrier(count, timeout=60)


class Threads:
    """See `Peers`."""

    def __init__(self, rank: int, shared: Shared) -> None:
        self.rank = rank
        self.count = shared.count
        self._shared = shared

    def sum(self, values: Tensor) -> Tensor:
        shared = self._shared
        with shared.lock:
            shared.values.append(values.clone())
        shared.barrier.wait()
        # As torch.distributed does: the sum of two truths is a truth.
        total = torch.stack(shared.values).sum(0, dtype=values.dtype)
        if shared.barrier.wait() == 0:
            shared.values.clear()
        shared.barrier.wait()
        return total


def together(count: int, work: Any) -> list[Any]:
    """The results of `work(peers)` in so many threads."""
    shared = Shared(count)
    results: list[Any] = [None] * count

    def run(rank: int) -> None:
        try:
            results[rank] = work(Threads(rank, shared))
        except BaseException:
            shared.barrier.abort()
            raise

    threads = [Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_numbers_are_added() -> None:
    assert together(3, lambda peers: total_of(peers, peers.rank + 1)) == [6, 6, 6]


def test_gradients_are_everybodys_mean() -> None:
    def work(peers: Threads) -> list[list[float]]:
        layer = nn.Linear(1, 2)
        frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
        layer.weight.grad = torch.tensor([[1.0], [2.0]]) * peers.rank
        # One has no gradient where the other has.
        layer.bias.grad = torch.tensor([4.0, 6.0]) if peers.rank else None
        average_gradients(peers, [layer.weight, frozen, layer.bias])
        assert frozen.grad is None
        assert layer.weight.grad is not None
        assert layer.bias.grad is not None
        return [layer.weight.grad.flatten().tolist(), layer.bias.grad.tolist()]

    assert together(2, work) == [[[0.5, 1.0], [2.0, 3.0]]] * 2


def examples(count: int) -> list[tuple[Tensor, Tensor]]:
    """Dark and bright images."""
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.randint(0, 100, (3, 32, 32), generator=generator) for _ in range(count)]
    return [
        ((image + 120 * (n % 2)).to(torch.uint8), torch.tensor(n % 2))
        for n, image in enumerate(pixels)
    ]


def untrained() -> TaskNetwork:
    return make_network(
        "classification",
        "mobilenet_v3_small",
        ("dark", "bright"),
        32,
        device=torch.device("cpu"),
        pretrained=False,
    )


def trained(peers: Threads, network: TaskNetwork) -> tuple[TaskNetwork, FitReport]:
    data = examples(16)
    recipe = Recipe(epochs=1, batch_size=16, augmentation=False)
    held_out = data[:4] if peers.rank == 0 else None
    return network, fit(network, data[peers.rank :: 2], held_out, recipe, peers=peers)


def weights(network: TaskNetwork) -> list[Tensor]:
    return [parameter.detach() for parameter in network.module.parameters()]


def test_all_end_with_the_same_weights() -> None:
    network = untrained()
    copies = [copy.deepcopy(network) for _ in range(2)]
    (first, report), (second, other) = together(2, lambda p: trained(p, copies[p.rank]))
    same = [torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True)]
    assert all(same)
    moved = [torch.equal(a, b) for a, b in zip(weights(first), weights(network), strict=True)]
    assert not any(moved)
    # A step for all together, of which each sees half.
    assert report.plan.steps_per_epoch == 1
    assert report.images == 8
    assert report.held_out_images == 4
    assert other.metrics is None


def test_if_one_lacks_memory_all_split_their_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = [copy.deepcopy(untrained()) for _ in range(2)]
    asked: list[tuple[int, int]] = []
    own = _Stepper._own_gradients

    def scarce(stepper: Any, images: Tensor, targets: Any) -> Tensor | None:
        asked.append((stepper._peers.rank, stepper._parts))
        if stepper._peers.rank == 1 and stepper._parts == 1:
            return None
        return own(stepper, images, targets)

    monkeypatch.setattr(_Stepper, "_own_gradients", scarce)
    (first, _), (second, _) = together(2, lambda p: trained(p, copies[p.rank]))
    assert sorted(asked) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


TARGETS = {
    "classification": torch.tensor(1),
    "segmentation": torch.zeros(64, 64, dtype=torch.uint8),
    "detection": torch.tensor([[8.0, 8.0, 40.0, 40.0, 1.0]]),
}


@pytest.mark.parametrize("task", TARGETS)
def test_a_network_is_measured_without_the_others(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchmetrics would wait for all processes that torch has connected."""
    network = make_network(
        task, "timm:tf_efficientnet_lite0", ("a", "b"), 64, device=torch.device("cpu")
    )
    data = [(torch.full((3, 64, 64), shade, dtype=torch.uint8), TARGETS[task]) for shade in (9, 99)]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert network.evaluate(data).main >= 0
