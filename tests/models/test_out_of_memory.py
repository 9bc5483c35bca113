"""When a GPU runs out of memory, batches are halved and the work goes on.

These tests need no GPU: real networks on the CPU raise CUDA's error for batches above a limit.
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
    """Limit a network's memory to this many images; returns a list of the batch sizes to come."""
    sizes: list[int] = []

    def full(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        sizes.append(len(arguments[0]))
        if len(arguments[0]) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")

    network.module.register_forward_pre_hook(full)
    return sizes


@pytest.mark.slow
def test_training_goes_on_with_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network()
    sizes = with_memory_for(network, 5)
    steps: list[float] = []
    step = torch.optim.AdamW.step

    def counted(self: Any, closure: Callable[[], float] | None = None) -> Any:
        steps.append(1)
        return step(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    report = fit(network, DATA, None, RECIPE)
    # 16 and 8 images are tried once; then there are three batches per epoch, each in quarters.
    assert sizes == [16, 8, *[4] * 4 * 3 * 2]
    assert len(steps) == report.plan.steps == 6
    assert all(loss > 0 for loss in report.losses)


@pytest.mark.slow
def test_the_gradients_of_the_parts_add_up_to_those_of_the_whole() -> None:
    """Except with batch normalisation, which is disabled here."""
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


def test_measuring_goes_on_with_smaller_batches() -> None:
    network = small_network()
    whole = network.evaluate(DATA)
    sizes = with_memory_for(network, 20)
    assert network.evaluate(DATA).values == pytest.approx(whole.values, abs=1e-5)
    assert sizes == [48, 32, 16, 16, 16]
    assert network.prediction_batch_size == 16


def test_without_memory_for_a_single_image_it_fails() -> None:
    network = small_network()
    with_memory_for(network, 0)
    with pytest.raises(torch.OutOfMemoryError):
        network.evaluate(DATA)
    with pytest.raises(torch.OutOfMemoryError):
        fit(network, DATA, None, RECIPE)
