"""Image classification in Label Studio's format: `Choices`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.format import Region, regions_of
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import Classification


@dataclass(frozen=True, slots=True)
class ChoiceTruth:
    """The class of an image."""

    label: str
    index: int
    dropped: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def classes(self) -> frozenset[str]:
        """The one label."""
        return frozenset({self.label})

    def unseen(self, side: int) -> int:  # noqa: ARG002
        """A class has no size, so nothing is too small."""
        return 0

    def target(self, height: int, width: int) -> Tensor:  # noqa: ARG002 — at any size
        """Its index, () int64."""
        return torch.tensor(self.index)

    def digest(self) -> str:
        """The label."""
        return self.label


def to_result(
    control: Control,
    classes: Sequence[str],
    finding: Classification,
    size: tuple[int, int],  # noqa: ARG001 — at any size
    settings: ProjectSettings,  # noqa: ARG001
) -> list[Region]:
    """One choice, its confidence as the score of the region."""
    label = classes[finding.label]
    if label not in control.labels or finding.confidence < (control.score_threshold or 0):
        return []
    return [
        {
            "from_name": control.from_name,
            "to_name": control.to_name,
            "type": "choices",
            "value": {"choices": [label]},
            "score": round(finding.confidence, 4),
        }
    ]


def read(
    control: Control,
    result: Sequence[Any],
    settings: ProjectSettings,  # noqa: ARG001
) -> ChoiceTruth | None:
    """The first choice; None if there is none or the labeling config no longer has it."""
    for _, label, value in regions_of(control, result):
        if value.get("choices"):
            return None if label is None else ChoiceTruth(label, control.labels.index(label))
    return None
