"""Consensus: what several annotators together say about an image.

- Choices: the share of the votes of each label, which a network learns as they are. Where an image
  may have several, it is the share of the annotators who chose the label.
- Boxes: those that mean the same object (an IoU over 0.5) become their mean, with the label of most
  of its annotators. An object counts if at least half of the annotators have it: people miss
  objects more often than they invent them, and what is left out would be learnt as background.
- Masks: of each pixel, the class that more annotators give it than any other. Where two are equal,
  nothing is learnt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cdal.backend.annotations.agreement import pairs
from cdal.backend.annotations.choices import ChoiceTruth, VotedTruth
from cdal.backend.annotations.control import Control
from cdal.backend.annotations.format import Truth
from cdal.backend.annotations.masks import MajorityTruth, MaskTruth
from cdal.backend.annotations.multiple_choices import ChoicesTruth
from cdal.backend.annotations.rectangles import BoxesTruth


def consensus(control: Control, truths: Sequence[Truth]) -> Truth:
    """What several annotators together say.

    Args:
        control: the control that they are of.
        truths: of one image, at least one, each by another person; the latest last.
    """
    if len(truths) == 1:
        return truths[0]
    choices = [truth for truth in truths if isinstance(truth, ChoiceTruth)]
    boxes = [truth for truth in truths if isinstance(truth, BoxesTruth)]
    masks = [truth for truth in truths if isinstance(truth, MaskTruth)]
    several = [truth for truth in truths if isinstance(truth, ChoicesTruth)]
    if several:
        shares = np.mean([truth.shares for truth in several], 0).tolist()
        return ChoicesTruth(control.labels, tuple(shares))
    if choices:
        return _votes(control, choices)
    return _objects(boxes) if boxes else MajorityTruth(tuple(masks))


def _votes(control: Control, truths: Sequence[ChoiceTruth]) -> Truth:
    votes = Counter(truth.label for truth in truths)
    if len(votes) == 1:
        return truths[-1]
    return VotedTruth(control.labels, tuple(votes[label] for label in control.labels))


@dataclass(slots=True)
class _Object:
    """An object, what each of its annotators has drawn and called it, and how the latest turned it.

    Attributes:
        boxes: the latest last.
        indices: the latest last.
        turn: see `BoxesTruth.turns`; that of a mean of turns would mean nothing.
    """

    boxes: list[npt.NDArray[np.float32]]
    indices: list[int]
    turn: npt.NDArray[np.float32]

    @property
    def box(self) -> npt.NDArray[np.float32]:
        """The mean box."""
        mean: npt.NDArray[np.float32] = np.mean(self.boxes, 0, dtype=np.float32)
        return mean

    @property
    def index(self) -> int:
        """The class that most gave it; the latest of those that are equal."""
        votes = Counter(reversed(self.indices))
        return max(votes, key=votes.__getitem__)


def _objects(truths: Sequence[BoxesTruth]) -> BoxesTruth:
    found: list[_Object] = []
    for truth in truths:
        same = {column: row for row, column, _ in pairs(_truth_of(found, truth), truth, True)}
        turns = np.zeros((len(truth.boxes), 2), np.float32) if truth.turns is None else truth.turns
        for column, (box, index, turn) in enumerate(
            zip(truth.boxes, truth.indices.tolist(), turns, strict=True)
        ):
            if column in same:
                found[same[column]].boxes.append(box)
                found[same[column]].indices.append(index)
                found[same[column]].turn = turn
            else:
                found.append(_Object([box], [index], turn))
    agreed = [one for one in found if 2 * len(one.boxes) >= len(truths)]
    warnings = dict.fromkeys(text for truth in truths for text in truth.warnings)
    return _truth_of(agreed, truths[-1], tuple(warnings))


def _truth_of(
    objects: Sequence[_Object], like: BoxesTruth, warnings: tuple[str, ...] = ()
) -> BoxesTruth:
    turns = np.array([one.turn for one in objects], np.float32).reshape(-1, 2)
    return BoxesTruth(
        labels=like.labels,
        boxes=np.array([one.box for one in objects], np.float32).reshape(-1, 4),
        indices=np.array([one.index for one in objects], np.int64),
        turns=turns if turns.any() else None,
        warnings=warnings,
    )
