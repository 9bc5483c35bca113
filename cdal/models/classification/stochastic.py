"""Several opinions of one head: passes in which features drop out, and a committee of heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from cdal.models.classification.head import ClassificationHead
from cdal.models.classification.logistic import fit_logistic
from cdal.models.classification.pooled import VECTORS_AT_ONCE
from cdal.models.classification.shares import stacked
from cdal.models.data import Dataset
from cdal.models.errors import Stopped
from cdal.models.features import LabelledFeatures

PASSES = 10
DROPPED = 0.5
"""The share of the features that a pass leaves out."""

MEMBERS = 10
COMMITTEE_FILE = "committee.safetensors"


def dropout_passes(
    network: ClassificationHead, vectors: Tensor, seed: int = 0, passes: int = PASSES
) -> Tensor:
    """What the head says when each image loses half of its features, others in each pass.

    Monte Carlo dropout (Gal and Ghahramani, ICML 2016) on the input of the last layer, which is
    all that a head has.

    Args:
        network: the trained head.
        vectors: features of N images, (N, D) float32.
        seed: of what drops out.
        passes: S.

    Returns:
        Probabilities, (N, S, C) float32, on the CPU.
    """
    generator = Generator().manual_seed(seed)
    found = torch.empty(len(vectors), passes, len(network.classes))
    for rows in torch.split(torch.arange(len(vectors)), VECTORS_AT_ONCE):
        some = vectors[rows].to(network.device)
        for number in range(passes):
            kept = torch.rand(some.shape, generator=generator) >= DROPPED
            dropped = some * kept.to(network.device) / (1 - DROPPED)
            found[rows, number] = network.logits_of(dropped).softmax(1).cpu()
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Committee:
    """Heads that have each learnt from as many labelled images, drawn with replacement.

    Attributes:
        weight: of S heads, (S, C, D) float32.
        bias: (S, C) float32.
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def train(
        cls,
        network: ClassificationHead,
        data: Dataset | LabelledFeatures,
        seed: int = 0,
        members: int = MEMBERS,
        stop: Callable[[], bool] = lambda: False,
    ) -> Self:
        """Train a committee on a network's backbone.

        Raises:
            Stopped: ``stop`` returned True.
        """
        features, targets = network.seen(network.examples(data, stop), stop)
        vectors, labels = network.vectors(features), stacked(targets, len(network.classes))
        generator = Generator().manual_seed(seed)
        heads = []
        for _ in range(members):
            if stop():
                raise Stopped
            drawn = torch.randint(len(labels), (len(labels),), generator=generator)
            weights = torch.ones(len(network.classes))
            heads.append(fit_logistic(vectors[drawn], labels[drawn], weights, stop=stop))
        return cls(
            torch.stack([head.weight for head in heads]), torch.stack([head.bias for head in heads])
        )

    def opinions(self, vectors: Tensor) -> Tensor:
        """What each member says about N images, (N, D) float32: (N, S, C) float32, on the CPU."""
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten()
        shape = (-1, *self.bias.shape)
        parts: Sequence[Tensor] = torch.split(vectors.cpu(), VECTORS_AT_ONCE)
        return torch.cat([(rows @ weight.T + bias).view(shape).softmax(2) for rows in parts])

    def save(self, folder: Path) -> None:
        """Keep it beside the network's weights."""
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        save_file(tensors, folder / COMMITTEE_FILE)

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """The committee in a network's folder; None if there is none, or it is damaged."""
        try:
            tensors = load_file(folder / COMMITTEE_FILE)
            return cls(tensors["weight"], tensors["bias"])
        except (FileNotFoundError, SafetensorError, KeyError):
            return None
