"""A GPU whose memory is full: batches halve, and the work goes on.

There is no GPU here. The networks are real and on the CPU, and fake the one thing: beyond so many
images in a batch they raise what CUDA would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.colours import Colours, small_network
from torch import Tensor, nn

from cdal.models import ClassificationNetwork, Recipe, fit

RECIPE = Recipe(epochs=2, batch_size=16, augmentation=False)

DATA = Colours([0, 1, 2] * 16)


def with_memory_for(network: ClassificationNetwork, images: int) -> list[int]:
    """Let a network have memory for so many images; returns the sizes of the batches to come."""
    sizes: list[int] = []

    def full(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        sizes.append(len(arguments[0]))
        if len(arguments[0]) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")

    network.module.register_forward_pre_hook(full)
    return sizes


def test_a_training_goes_on_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network()
    sizes = with_memory_for(network, 5)
    steps: list[float] = []
    step = torch.optim.AdamW.step

    def counted(self: Any, closure: Callable[[], float] | None = None) -> Any:
        steps.append(1)
        return step(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    report = fit(network, DATA, None, RECIPE)
    # It is tried with 16 and 8 images once, and then three batches an epoch in quarters.
    assert sizes == [16, 8, *[4] * 4 * 3 * 2]
    assert len(steps) == report.plan.steps == 6
    assert all(loss > 0 for loss in report.losses)


def test_the_gradients_of_the_parts_are_those_of_the_whole() -> None:
    """But for batch normalisation, which is left out here."""
    weights = []
    for memory in (16, 4):
        network = small_network()
        for module in network.module.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
                module.register_forward_pre_hook(lambda m, _: m.eval() and None)
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        with_memory_for(network, memory)
        fit(network, DATA, None, Recipe(epochs=1, batch_size=16, augmentation=False))
        weights.append(network.module.head.weight.detach())
    assert torch.allclose(*weights, atol=1e-5)


def test_a_measurement_goes_on_in_halves() -> None:
    network = small_network()
    whole = network.evaluate(DATA)
    sizes = with_memory_for(network, 20)
    assert network.evaluate(DATA).values == pytest.approx(whole.values, abs=1e-5)
    assert sizes == [48, 32, 16, 16, 16]
    assert network.prediction_batch_size == 16


def test_without_memory_for_the_least_it_says_so() -> None:
    network = small_network()
    with_memory_for(network, 0)
    with pytest.raises(torch.OutOfMemoryError):
        network.evaluate(DATA)
    with pytest.raises(torch.OutOfMemoryError):
        fit(network, DATA, None, RECIPE)
