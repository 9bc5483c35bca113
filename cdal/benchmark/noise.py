"""Annotators who mistake one class for another (the noisy oracle of CDAL, ECCV 2020, section 9)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cdal.benchmark.errors import BenchmarkError


class Noise:
    """Wrong labels, the same whenever and to whichever selector they are revealed.

    The class of an image, the class of a box, or all pixels of one class in a mask is wrong with
    probability ``share``, independently of the others; another class of its super-class takes its
    place, as in the paper, or any other class if there are no super-classes. In multi-label
    classification, an annotator is wrong about each class with this probability.

    Args:
        task: of the network.
        classes: number of classes an annotator can choose from: the first ones.
        share: in [0, 1].
        seed: fixes which labels are wrong.
        super_classes: the super-class of each class, each with at least two; None if there are
            none.

    Raises:
        BenchmarkError: there is no other class.
    """

    def __init__(
        self,
        task: str,
        classes: int,
        share: float,
        seed: int,
        super_classes: Sequence[int] | None = None,
    ) -> None:
        if classes < 2:
            raise BenchmarkError("--noise needs at least two classes.")
        self._task = task
        self._classes = classes
        self._share = share
        self._seed = seed
        self._alike = None
        if super_classes is not None:
            self._alike = [
                [other for other, its in enumerate(super_classes) if its == mine and other != label]
                for label, mine in enumerate(super_classes)
            ]

    def __call__(self, row: int, target: Tensor) -> Tensor:
        """The target that an annotator would give this row of the pool."""
        draws = np.random.default_rng([self._seed, 3, row])
        if self._task == "classification":
            return self._mistaken(target[None], draws)[0]
        if self._task == "detection":
            labels = self._mistaken(target[:, 4].long(), draws).to(target.dtype)
            return torch.cat([target[:, :4], labels[:, None]], 1)
        if self._task == "multilabel":
            wrong = torch.from_numpy(draws.random(len(target)) < self._share).to(target.device)
            return torch.where(wrong, 1 - target, target)
        # For each class of the image, the class that its pixels are given.
        meant = self._mistaken(torch.arange(self._classes), draws)
        table = torch.arange(256, dtype=torch.uint8)
        table[: self._classes] = meant.to(torch.uint8)
        return table.to(target.device)[target.long()]

    def _mistaken(self, labels: Tensor, draws: np.random.Generator) -> Tensor:
        wrong = torch.from_numpy(draws.random(len(labels)) < self._share).to(labels.device)
        if self._alike is not None:
            others = [self._alike[label] for label in labels.tolist()]
            chosen = [some[draws.integers(len(some))] for some in others]
            return torch.where(wrong, labels.new_tensor(chosen), labels)
        further = torch.from_numpy(draws.integers(1, self._classes, len(labels))).to(labels.device)
        return torch.where(wrong, (labels + further) % self._classes, labels)
