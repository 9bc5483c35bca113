"""Throughput: how fast people label, and who."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.reports.view import Time, View
from cdal.backend.store.tables import Annotator, Project, Submission, now

MOST_BARS = 24
"""Bars of labels over time."""


class BarView(View):
    """The labels of one step of time."""

    from_: Time
    labels: int


class OverTimeView(View):
    """Labels in equal steps of time."""

    step_seconds: int
    bars: list[BarView] = Field(description="The newest last.")


class AnnotatorView(View):
    """Somebody who labels."""

    number: int = Field(description="The user's number in Label Studio.")
    name: str
    labels: int
    median_seconds: float | None = Field(description="Time per image.")
    last: Time


class ThroughputView(View):
    """How fast people label."""

    labels: int
    last_hour: int
    last_day: int
    median_seconds: float | None
    over_time: OverTimeView
    annotators: list[AnnotatorView]


def throughput_view(session: Session, project: Project) -> ThroughputView:
    """How fast people label a project, and who."""
    rows = session.execute(
        select(Submission.labelled_at, Submission.annotators, Submission.seconds)
        .filter_by(project_id=project.id)
        .order_by(Submission.labelled_at)
    ).all()
    times = [at for at, _, _ in rows]
    names = dict(
        session.execute(
            select(Annotator.number, Annotator.name).filter_by(project_id=project.id)
        ).all()
    )
    this_hour, this_day = now() - timedelta(hours=1), now() - timedelta(days=1)
    return ThroughputView(
        labels=len(rows),
        last_hour=sum(at > this_hour for at in times),
        last_day=sum(at > this_day for at in times),
        median_seconds=_median([taken for _, _, taken in rows]),
        over_time=_over_time(times),
        annotators=_by_annotator([tuple(row) for row in rows], names),
    )


def _by_annotator(
    rows: Sequence[tuple[datetime, Sequence[int], float | None]], names: Mapping[int, str]
) -> list[AnnotatorView]:
    """Annotators, those with the most labels first."""
    by_number: dict[int, list[tuple[datetime, float | None]]] = defaultdict(list)
    for at, numbers, taken in rows:
        for number in numbers:
            by_number[number].append((at, taken))
    found = [
        AnnotatorView(
            number=number,
            name=names.get(number, f"annotator {number}"),
            labels=len(theirs),
            median_seconds=_median([taken for _, taken in theirs]),
            last=max(at for at, _ in theirs),
        )
        for number, theirs in by_number.items()
    ]
    return sorted(found, key=lambda one: (-one.labels, one.name))


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _over_time(times: Sequence[datetime]) -> OverTimeView:
    """The last bars of labels over time, in steps of a round length."""
    if not times:
        return OverTimeView(step_seconds=0, bars=[])
    span = (times[-1] - times[0]).total_seconds()
    step = next(
        (s for s in (60, 300, 900, 3600, 6 * 3600, 86400, 7 * 86400) if span / s < MOST_BARS),
        30 * 86400,
    )
    start = datetime(2000, 1, 1)
    counts = Counter(int((at - start).total_seconds() // step) for at in times)
    first = max(min(counts), max(counts) - MOST_BARS + 1)
    return OverTimeView(
        step_seconds=step,
        bars=[
            BarView(from_=start + timedelta(seconds=place * step), labels=counts[place])
            for place in range(first, max(counts) + 1)
        ],
    )
