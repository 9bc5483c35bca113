"""Labelled images as a data set for networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cdal.datasets.errors import DatasetError
from cdal.datasets.image_set import Example, ImageSet
from cdal.models.predictions import BACKGROUND, IGNORED


class LabelledImages:
    """Some examples of a set, read on request; a ``cdal.models.Dataset``.

    Args:
        images: the set.
        examples: the examples to use.
        classes: the network's classes, which targets index; None: the set's. If the last class is
            ``BACKGROUND``, pixels without a class belong to it, as when such a network is trained.

    Raises:
        DatasetError: the network lacks a class of the set.
    """

    def __init__(
        self, images: ImageSet, examples: Sequence[Example], classes: Sequence[str] | None = None
    ) -> None:
        classes = images.classes if classes is None else classes
        missing = [name for name in images.classes if name not in classes]
        if missing:
            raise DatasetError(f"The network lacks these classes: {', '.join(missing)}.")
        self._examples = examples
        self._task = images.task
        self._index = torch.full((max(256, len(images.classes)),), IGNORED)
        if classes[-1] == BACKGROUND:
            self._index[IGNORED] = len(classes) - 1
        self._index[: len(images.classes)] = torch.tensor(
            [list(classes).index(name) for name in images.classes]
        )

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        """An image, (3, H, W) uint8, and its target; see ``cdal.models.predictions``."""
        example = self._examples[index]
        target = example.target()
        if self._task == "detection":
            target[:, 4] = self._index[target[:, 4].long()].float()
        else:
            target = self._index[target.long()].to(target.dtype)
        return example.pixels(), target
