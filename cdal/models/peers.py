"""Processes that train copies of the same network, each on its share of the images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn


class Peers(Protocol):
    """What they tell each other. Each calls the same methods in the same order.

    Attributes:
        rank: which of them this is, from 0.
        count: how many there are.
    """

    rank: int
    count: int

    def sum(self, values: Tensor) -> Tensor:
        """The sum of everybody's values, of the same shape, on the same device."""
        ...


def total_of(peers: Peers, number: int) -> int:
    """The sum of everybody's numbers."""
    return int(peers.sum(torch.tensor([int(number)])))


def average_gradients(peers: Peers, parameters: Iterable[nn.Parameter]) -> None:
    """Give each parameter everybody's mean gradient."""
    learnt = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learnt]
    mean = peers.sum(torch.cat([each.reshape(-1) for each in gradients])) / peers.count
    parts = torch.split(mean, [each.numel() for each in gradients])
    for parameter, gradient, part in zip(learnt, gradients, parts, strict=True):
        parameter.grad = part.view_as(gradient)
