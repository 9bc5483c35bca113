from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.colours import Colours, small_network

from cdal.models import ClassificationNetwork, FitReport, Recipe, fit

Initialise = Callable[..., torch.Tensor]

MANY = 2**22
"""Weights of a layer; only two of VGG's have more: to draw their 120 million takes seconds."""


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the largest layers, the weights of the first rows are drawn and those of others copied."""
    for name in ("normal_", "kaiming_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, _by_rows(getattr(torch.nn.init, name)))


def _by_rows(initialise: Initialise) -> Initialise:
    """The same for tensors (O, I) of many weights; the size of a weight depends on I alone."""

    def quickly(tensor: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        if tensor.ndim != 2 or tensor.numel() < MANY:
            return initialise(tensor, *arguments, **named)
        rows = tensor.detach().split(64)
        initialise(rows[0], *arguments, **named)
        for others in rows[1:]:
            others.copy_(rows[0][: len(others)])
        return tensor

    return quickly


@pytest.fixture(scope="session")
def trained() -> tuple[ClassificationNetwork, FitReport]:
    """A network that knows red, green and blue (do not change it), and its training report."""
    network = small_network(("red", "green", "blue"))
    data, held_out = Colours([0, 1, 2] * 8), Colours([0, 1, 2] * 2, seed=1)
    return network, fit(network, data, held_out, Recipe(epochs=25, batch_size=8))
