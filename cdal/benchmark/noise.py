"""Annotators who mistake one class for another (the noisy oracle of CDAL, ECCV 2020, section 9)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cdal.benchmark.errors import BenchmarkError


class Noise:
    """Wrong labels, the same whenever and to whichever selector they are revealed.

    The class of an image, the class of a box, or all pixels of one class in a mask is wrong with
    probability ``share``, independently of the others; any other class takes its place. (The paper
    draws from the same super-class, which only CIFAR-100 has.)

    Args:
        task: "classification", "segmentation" or "detection".
        classes: number of classes an annotator can choose from: the first ones.
        share: in [0, 1].
        seed: fixes which labels are wrong.

    Raises:
        BenchmarkError: there is no other class.
    """

    def __init__(self, task: str, classes: int, share: float, seed: int) -> None:
        if classes < 2:
            raise BenchmarkError("--noise needs at least two classes.")
        self._task = task
        self._classes = classes
        self._share = share
        self._seed = seed

    def __call__(self, row: int, target: Tensor) -> Tensor:
        """The target that an annotator would give this row of the pool."""
        draws = np.random.default_rng([self._seed, 3, row])
        if self._task == "classification":
            return self._mistaken(target[None], draws)[0]
        if self._task == "detection":
            labels = self._mistaken(target[:, 4].long(), draws).to(target.dtype)
            return torch.cat([target[:, :4], labels[:, None]], 1)
        # For each class of the image, the class that its pixels are given.
        meant = self._mistaken(torch.arange(self._classes), draws)
        table = torch.arange(256, dtype=torch.uint8)
        table[: self._classes] = meant.to(torch.uint8)
        return table.to(target.device)[target.long()]

    def _mistaken(self, labels: Tensor, draws: np.random.Generator) -> Tensor:
        wrong = torch.from_numpy(draws.random(len(labels)) < self._share).to(labels.device)
        further = torch.from_numpy(draws.integers(1, self._classes, len(labels))).to(labels.device)
        return torch.where(wrong, (labels + further) % self._classes, labels)
