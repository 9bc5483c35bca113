"""What a simulation works on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cdal.benchmark.data_set import DataSet
from cdal.benchmark.held_images import HeldImages
from cdal.models import BACKGROUND


@dataclass(frozen=True)
class Materials:
    """The images, in memory, and where to compute.

    Attributes:
        data: the names of the images and the classes.
        pool: the training images, in the order of their names.
        test: the test images.
        device: where networks run.
    """

    data: DataSet
    pool: HeldImages
    test: HeldImages
    device: torch.device

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each image of the pool, by name."""
        return {name: row for row, name in enumerate(self.data.pool.names)}

    @property
    def annotated(self) -> int:
        """How many classes annotators know: the background is not theirs."""
        return len(self.data.classes) - (BACKGROUND in self.data.classes)

    @property
    def counts(self) -> Tensor:
        """How often each class that annotators know occurs in each image of the pool, (N, C)."""
        return self.pool.counts[:, : self.annotated]

    def occurring(self) -> list[dict[int, int]]:
        """The same, without the zeros: of each image the classes in it, and how often."""
        return [
            {index: round(count) for index, count in enumerate(row) if count}
            for row in self.counts.tolist()
        ]

    def names(self, rows: list[int]) -> list[str]:
        """What these images of the pool are called."""
        return [self.data.pool.names[row] for row in rows]
