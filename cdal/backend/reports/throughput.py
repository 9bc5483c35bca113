"""Throughput: how fast people label, and who."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

from pydantic import Field
from sqlalchemy import ColumnElement, Text, cast, func, select
from sqlalchemy.orm import Session

from cdal.backend.reports.view import Time, View
from cdal.backend.store.tables import Annotator, Project, Submission, now

MOST_BARS = 24
"""Bars of labels over time."""

TIMED = 5000
"""Labels whose time counts, the newest: how fast people label now."""

HOUR = timedelta(hours=1)


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
    median_seconds: float | None = Field(description=f"Per image, of the newest {TIMED} labels.")
    last: Time


class ThroughputView(View):
    """How fast people label."""

    labels: int
    last_hour: int
    last_day: int
    median_seconds: float | None = Field(description=f"Per image, of the newest {TIMED} labels.")
    over_time: OverTimeView
    annotators: list[AnnotatorView]


def throughput_view(session: Session, project: Project) -> ThroughputView:
    """How fast people label a project, and who."""
    of_project = Submission.project_id == project.id
    names = dict(
        session.execute(
            select(Annotator.number, Annotator.name).filter_by(project_id=project.id)
        ).all()
    )
    recent = session.execute(
        select(Submission.annotators, Submission.seconds)
        .where(of_project)
        .order_by(Submission.labelled_at.desc())
        .limit(TIMED)
    ).all()
    return ThroughputView(
        labels=_count(session, of_project),
        last_hour=_count(session, of_project & (Submission.labelled_at > now() - HOUR)),
        last_day=_count(session, of_project & (Submission.labelled_at > now() - 24 * HOUR)),
        median_seconds=_median([taken for _, taken in recent]),
        over_time=_over_time(session, of_project),
        annotators=_by_annotator(session, of_project, [tuple(row) for row in recent], names),
    )


def _count(session: Session, condition: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).where(condition)) or 0


def _by_annotator(
    session: Session,
    of_project: ColumnElement[bool],
    recent: Sequence[tuple[Sequence[int], float | None]],
    names: Mapping[int, str],
) -> list[AnnotatorView]:
    """Annotators, those with the most labels first."""
    # By the list as text: databases group no JSON, and there are as many lists as groups of people.
    people = cast(Submission.annotators, Text)
    labels: Counter[int] = Counter()
    last: dict[int, datetime] = {}
    query = select(people, func.count(), func.max(Submission.labelled_at)).where(of_project)
    for group, count, newest in session.execute(query.group_by(people)):
        for number in json.loads(group):
            labels[number] += count
            last[number] = max(newest, last.get(number, newest))
    seconds: dict[int, list[float | None]] = defaultdict(list)
    for numbers, taken in recent:
        for number in numbers:
            seconds[number].append(taken)
    found = [
        AnnotatorView(
            number=number,
            name=names.get(number, f"annotator {number}"),
            labels=count,
            median_seconds=_median(seconds[number]),
            last=last[number],
        )
        for number, count in labels.items()
    ]
    return sorted(found, key=lambda one: (-one.labels, one.name))


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _over_time(session: Session, of_project: ColumnElement[bool]) -> OverTimeView:
    """The last bars of labels over time, in steps of a round length."""
    at = Submission.labelled_at
    oldest, newest = session.execute(select(func.min(at), func.max(at)).where(of_project)).one()
    if oldest is None:
        return OverTimeView(step_seconds=0, bars=[])
    span = (newest - oldest).total_seconds()
    step = next(
        (s for s in (60, 300, 900, 3600, 6 * 3600, 86400, 7 * 86400) if span / s < MOST_BARS),
        30 * 86400,
    )
    start = datetime(2000, 1, 1)
    last = int((newest - start).total_seconds() // step)
    first = max(int((oldest - start).total_seconds() // step), last - MOST_BARS + 1)
    begins = [start + timedelta(seconds=place * step) for place in range(first, last + 2)]
    bars = [
        BarView(from_=begin, labels=_count(session, of_project & (at >= begin) & (at < end)))
        for begin, end in pairwise(begins)
    ]
    return OverTimeView(step_seconds=step, bars=bars)
