"""Image classification in Label Studio's format: `Choices`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.format import Reading, Region, regions_of
from cdal.backend.annotations.whole_image import WholeImage, choices_region
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import Classification


@dataclass(frozen=True, slots=True)
class ChoiceTruth(WholeImage):
    """The class of an image."""

    label: str
    index: int
    warnings: tuple[str, ...] = ()

    @property
    def classes(self) -> frozenset[str]:
        """The one label."""
        return frozenset({self.label})

    @property
    def most_voted(self) -> frozenset[str]:
        """The one label."""
        return frozenset({self.label})

    def target(self, height: int, width: int) -> Tensor:  # noqa: ARG002 — at any size
        """Its index, () int64."""
        return torch.tensor(self.index)

    def digest(self) -> str:
        """The label."""
        return self.label


@dataclass(frozen=True, slots=True)
class VotedTruth(WholeImage):
    """The classes of an image about which annotators do not agree.

    Attributes:
        labels: the control's.
        votes: for each label, how many annotators chose it.
    """

    labels: tuple[str, ...]
    votes: tuple[int, ...]
    warnings: tuple[str, ...] = ()

    @property
    def classes(self) -> frozenset[str]:
        """The labels that somebody chose."""
        return frozenset(
            label for label, votes in zip(self.labels, self.votes, strict=True) if votes
        )

    @property
    def most_voted(self) -> frozenset[str]:
        """The labels with the most votes."""
        most = max(self.votes)
        return frozenset(
            label for label, votes in zip(self.labels, self.votes, strict=True) if votes == most
        )

    def target(self, height: int, width: int) -> Tensor:  # noqa: ARG002 — at any size
        """The share of the votes of each label, (C,) float32."""
        votes = torch.tensor(self.votes, dtype=torch.float32)
        return votes / votes.sum()

    def digest(self) -> str:
        """The labels and their votes."""
        said = zip(self.labels, self.votes, strict=True)
        return json.dumps({label: votes for label, votes in said if votes})


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
    return [choices_region(control, [label], finding.confidence)]


def read(
    control: Control,
    result: Sequence[Any],
    settings: ProjectSettings,  # noqa: ARG001
) -> Reading:
    """The choice; nothing is learnt where one is not known, or it is not the only one."""
    left_out: list[str] = []
    labels: set[str] = set()
    unknown = False
    for found in regions_of(control, result):
        if found.label is not None:
            labels.add(found.label)
        elif found.value.get("choices") or not found.value:  # nothing chosen is no fault
            left_out.append(found.why)
            unknown |= bool(found.value)
    if len(labels) > 1:
        left_out.append("with several labels")
    if len(labels) != 1 or unknown:
        return Reading(None, tuple(left_out))
    label = labels.pop()
    return Reading(ChoiceTruth(label, control.labels.index(label)), tuple(left_out))
