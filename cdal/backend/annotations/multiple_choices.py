"""Multi-label classification in Label Studio's format: `Choices` with `choice="multiple"`.

An image that was submitted without a choice has none of the classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.format import Reading, Region, labels_of, regions_of
from cdal.backend.annotations.whole_image import WholeImage, choices_region
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import CHOSEN, Multilabel


@dataclass(frozen=True, slots=True)
class ChoicesTruth(WholeImage):
    """Which classes an image has.

    Attributes:
        labels: the control's.
        shares: for each label, the share of the annotators who chose it; 0 or 1 for a single one.
    """

    labels: tuple[str, ...]
    shares: tuple[float, ...]
    warnings: tuple[str, ...] = ()

    @property
    def classes(self) -> frozenset[str]:
        """The labels that at least half of the annotators chose."""
        said = zip(self.labels, self.shares, strict=True)
        return frozenset(label for label, share in said if share >= CHOSEN)

    def target(self, height: int, width: int) -> Tensor:  # noqa: ARG002 — at any size
        """The shares, (C,) float32."""
        return torch.tensor(self.shares, dtype=torch.float32)

    def digest(self) -> str:
        """The labels that somebody chose, and their shares."""
        said = zip(self.labels, self.shares, strict=True)
        return json.dumps({label: share for label, share in said if share})


def to_result(
    control: Control,
    classes: Sequence[str],
    finding: Multilabel,
    size: tuple[int, int],  # noqa: ARG001 — at any size
    settings: ProjectSettings,  # noqa: ARG001
) -> list[Region]:
    """One region of the choices that are probable enough, with their mean probability as score."""
    threshold = CHOSEN if control.score_threshold is None else control.score_threshold
    found = {
        label: probability
        for label, probability in zip(classes, finding.probabilities.tolist(), strict=True)
        if label in control.labels and probability >= threshold
    }
    if not found:
        return []
    return [choices_region(control, list(found), sum(found.values()) / len(found))]


def read(
    control: Control,
    result: Sequence[Any],
    settings: ProjectSettings,  # noqa: ARG001
) -> Reading:
    """The choices; nothing is learnt where one of them is not known."""
    chosen: set[str] = set()
    left_out: list[str] = []
    for found in regions_of(control, result):
        labels = labels_of(control, found.value)
        if labels is not None:
            chosen |= labels
        elif found.value.get("choices") or not found.value:  # nothing chosen is no fault
            left_out.append(found.why)
    if left_out:
        return Reading(None, tuple(left_out))
    shares = tuple(float(label in chosen) for label in control.labels)
    return Reading(ChoicesTruth(control.labels, shares))
