"""How far two annotations of an image agree, whoever made them: from 0 to 1.

- Choices: 1 for the same class, else 0; with a vote, by the classes that have most votes.
- Several choices: the number of those that both have, by the number that either has.
- Boxes: the IoU of the pairs of boxes that mean the same object, summed, by the number of objects
  that either has. Two boxes are a pair if they have the same label and an IoU over `SAME_OBJECT`.
- Masks: the share of the pixels that either labels which have the same label in both.

Two annotations that both say that there is nothing agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

import numpy as np
import torch
from torchvision.ops import box_iou

from cdal.backend.annotations.choices import ChoiceTruth, VotedTruth
from cdal.backend.annotations.format import Truth
from cdal.backend.annotations.masks import MajorityTruth, MaskTruth
from cdal.backend.annotations.multiple_choices import ChoicesTruth
from cdal.backend.annotations.rectangles import BoxesTruth
from cdal.models.predictions import IGNORED

SAME_OBJECT = 0.5
"""The IoU over which two boxes of a class are taken for the same object."""

SIDE = 512
"""Masks are compared at this size, whatever the image's: a thousandth of it is 262 pixels."""


def agreement(one: Truth, other: Truth) -> float:
    """How far two annotations of an image agree, see above.

    Raises:
        TypeError: they are of different kinds.
    """
    match one, other:
        case ((ChoiceTruth() | VotedTruth()), (ChoiceTruth() | VotedTruth())):
            return len(one.most_voted & other.most_voted) / len(one.most_voted | other.most_voted)
        case ChoicesTruth(), ChoicesTruth():
            either = one.classes | other.classes
            return len(one.classes & other.classes) / len(either) if either else 1.0
        case BoxesTruth(), BoxesTruth():
            return _of_boxes(one, other)
        case ((MaskTruth() | MajorityTruth()), (MaskTruth() | MajorityTruth())):
            return _of_masks(one, other)
    raise TypeError(f"a {type(one).__name__} is not comparable with a {type(other).__name__}")


def agreement_over(one: Mapping[str, Truth], other: Mapping[str, Truth]) -> float | None:
    """The mean agreement over the controls that both say something about, by their names.

    None if there is no such control.
    """
    found = [agreement(one[name], other[name]) for name in one if name in other]
    return mean(found) if found else None


def pairs(
    one: BoxesTruth, other: BoxesTruth, any_label: bool = False
) -> list[tuple[int, int, float]]:
    """The boxes of two annotations that mean the same objects, and their IoU; each in one pair.

    With `any_label`, boxes of different labels may be a pair, after those of the same.
    """
    overlaps = box_iou(torch.from_numpy(one.boxes), torch.from_numpy(other.boxes)).numpy()
    same = one.indices[:, None] == other.indices
    if not any_label:
        overlaps = np.where(same, overlaps, 0.0)
    rows, columns = np.nonzero(overlaps > SAME_OBJECT)
    best_first = np.lexsort((-overlaps[rows, columns], ~same[rows, columns]))
    found: list[tuple[int, int, float]] = []
    taken: tuple[set[int], set[int]] = (set(), set())
    for row, column in zip(rows[best_first].tolist(), columns[best_first].tolist(), strict=True):
        if row not in taken[0] and column not in taken[1]:
            taken[0].add(row)
            taken[1].add(column)
            found.append((row, column, float(overlaps[row, column])))
    return found


def _of_boxes(one: BoxesTruth, other: BoxesTruth) -> float:
    same = pairs(one, other)
    objects = len(one.boxes) + len(other.boxes) - len(same)
    return sum(overlap for _, _, overlap in same) / objects if objects else 1.0


def _of_masks(one: MaskTruth | MajorityTruth, other: MaskTruth | MajorityTruth) -> float:
    background = len(one.labels)
    first, second = (truth.target(SIDE, SIDE).numpy() for truth in (one, other))
    known = (first != IGNORED) & (second != IGNORED)
    labelled = (known & ((first != background) | (second != background))).sum()
    if one.uncovered == IGNORED:  # an uncovered pixel may be of any class, or not labelled yet
        labelled = ((first != IGNORED) | (second != IGNORED)).sum()
    same = (known & (first == second) & (first != background)).sum()
    return float(same / labelled) if labelled else 1.0
