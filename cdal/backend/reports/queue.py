"""The queue: the open round's images by rank, and why each was picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session
from torch import Tensor

from cdal.backend.loop.pool_scores import Scores
from cdal.backend.loop.rounds import open_round
from cdal.backend.reports.view import View
from cdal.backend.store.tables import Pick, Project, Task
from cdal.models import BACKGROUND

BARS = 5
"""Classes of a mixture that are shown, the most probable in either image."""


class PickView(View):
    """An image that a round ranked."""

    rank: int
    task: int
    state: Literal["ranked", "sending", "queued"]
    score: float
    reason: dict[str, Any] = Field(description="Why it was picked, as its selector says.")
    labelled: bool
    skipped: bool


class QueueView(View):
    """The round that the label stream follows, and its images by rank."""

    round: int | None
    selector: str | None
    picks: list[PickView]


def queue_view(
    session: Session, project: Project, first: int = 0, most: int | None = None
) -> QueueView:
    """The round that the label stream follows, and its images by rank.

    Args:
        session: to read with.
        project: whose queue.
        first: how many ranks to leave out.
        most: the most images to return; None: all.
    """
    current = open_round(session, project)
    if current is None:
        return QueueView(round=None, selector=None, picks=[])
    query = (
        select(Pick, Task.annotations, Task.skips)
        .outerjoin(Task, (Task.task_id == Pick.task_id) & (Task.project_id == project.id))
        .where(Pick.round_id == current.id)
        .order_by(Pick.rank)
        .offset(first)
        .limit(most)
    )
    picks = [
        PickView(
            rank=pick.rank,
            task=pick.task_id,
            state=pick.state,
            score=pick.score,
            reason=pick.reason,
            labelled=bool(labels),
            skipped=not labels and bool(skips),
        )
        for pick, labels, skips in session.execute(query)
    ]
    return QueueView(round=current.number, selector=current.selector, picks=picks)


@dataclass(frozen=True, slots=True)
class Bar:
    """The probability of one class in a mixture of an image, and in its nearest image's.

    Attributes:
        name: of the class.
        index: of the class, which gives its colour.
        here: in the image.
        there: in its nearest image; None where that one has no such mixture.
    """

    name: str
    index: int
    here: float
    there: float | None


@dataclass(frozen=True, slots=True)
class Why:
    """Why one image was picked.

    Attributes:
        nearest: the nearest task, labelled or picked before; None where the selector does not
            compare images.
        shares: each class's share of the distance, by name.
        region: the class whose mixtures are compared; None for the mixture of the whole image.
        bars: that mixture in both images.
    """

    nearest: int | None
    shares: dict[str, float]
    region: str | None
    bars: tuple[Bar, ...]

    @property
    def telling(self) -> tuple[Bar, ...]:
        """The two classes that differ most between the two mixtures."""
        order = sorted(self.bars, key=lambda bar: -abs(bar.here - (bar.there or 0.0)))
        return tuple(order[:2])


def why_picked(
    folder: Path,
    classes: Sequence[str],
    reasons: Mapping[int, Mapping[str, Any]],
    independent: bool = False,
    beside: Sequence[str] = (),
) -> dict[int, Why]:
    """Why each of some images was picked.

    Args:
        folder: of the scores of the round's model.
        classes: of that model.
        reasons: of the selector, by task.
        independent: whether an image may have several classes; then the bars are the probabilities
            of each.
        beside: the classes of the round's other models, which a reason counts behind these.
    """
    near = {r["nearest"] for r in reasons.values() if isinstance(r.get("nearest"), int)}
    scores = Scores.of_tasks(folder, {*reasons, *near})
    if scores is None:
        return {}
    if scores.mixtures.shape[2] > len(classes):
        classes = (*classes, BACKGROUND)  # of boxes
    rows = {task: row for row, task in enumerate(scores.task_ids.tolist())}
    return {
        task: _why(scores, rows, classes, task, reason, independent, beside)
        for task, reason in reasons.items()
        if task in rows
    }


def _why(
    scores: Scores,
    rows: Mapping[int, int],
    classes: Sequence[str],
    task: int,
    reason: Mapping[str, Any],
    independent: bool,
    beside: Sequence[str],
) -> Why:
    row = rows[task]
    shares = {int(index): share for index, share in (reason.get("classes") or {}).items()}
    nearest = reason.get("nearest")
    other = rows.get(nearest) if isinstance(nearest, int) else None
    by_class = scores.mixtures.shape[1] > 1 and not independent
    region = _region(scores, row, shares) if by_class else 0
    here = _bars(scores, row, region, independent)
    there = _bars(scores, other, region, independent) if other is not None else None
    if not independent and other is not None and not scores.present[other, region]:
        there = None
    most = here if there is None else torch.maximum(here, there)
    top = most.argsort(descending=True)[:BARS]
    shown = top[here[top].argsort(descending=True, stable=True)].tolist()
    bars = tuple(
        Bar(classes[i], i, float(here[i]), None if there is None else float(there[i]))
        for i in shown
        if most[i] >= 0.005
    )
    return Why(
        nearest=nearest if isinstance(nearest, int) else None,
        shares={(*classes, *beside)[index]: share for index, share in shares.items()},
        region=classes[region] if by_class else None,
        bars=bars,
    )


def _bars(scores: Scores, row: int, region: int, independent: bool) -> Tensor:
    """What the bars show of an image, (C,): one of its mixtures, or the probability of each class,
    see `mixtures_of_independent`.
    """
    mixtures = scores.mixtures[row]
    return mixtures.diagonal() if independent else mixtures[region]


def _region(scores: Scores, row: int, shares: Mapping[int, float]) -> int:
    """The class that made most of the distance among those present in the image."""
    present = scores.present[row]
    by_share = sorted(shares, key=lambda index: -shares[index])
    made = [index for index in by_share if index < len(present) and present[index]]
    if made:
        return made[0]
    return int(torch.where(present, scores.region_counts[row], -1).argmax())
