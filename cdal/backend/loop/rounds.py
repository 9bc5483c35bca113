"""Rounds: how one begins, and what is left of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from cdal.backend.jobs.kinds import JobKind
from cdal.backend.jobs.manager import Jobs
from cdal.backend.project_config import ProjectConfig
from cdal.backend.store.events import note
from cdal.backend.store.queries import count_labelled, still_served
from cdal.backend.store.tables import Comparison, Job, Pick, Project, Round, Task, now

UNFINISHED = ("scoring", "selecting", "queueing")
"""States of a round that is being made; after them it is "open", and finally "closed"."""

MADE_BY: Mapping[str, JobKind] = {"scoring": "score", "selecting": "select", "queueing": "queue"}
"""The kind of job that an unfinished round in this state waits for."""


_QUEUE_VERSION = re.compile(r"CDAL round ([0-9]{1,9})\.[0-9]{1,9}")


def queue_version(current: Round) -> str:
    """What Label Studio sees as the model version of the newest edition of a round's queue."""
    return f"CDAL round {current.number}.{current.editions}"


def round_of_queue(version: str) -> int | None:
    """The number of the round that a queue version belongs to; None if it is not one of ours."""
    match = _QUEUE_VERSION.fullmatch(version)
    return int(match[1]) if match else None


class Begun(NamedTuple):
    """A round that has just begun, and the number of the job that takes its first step."""

    round: Round
    job: int


def begin_round(
    session: Session,
    jobs: Jobs,
    project_id: int,
    cold_start: str | None = None,
    trained: bool = False,
) -> Begun:
    """Begin a project's next round: score the pool with the serving model, select, queue.

    Without a serving model the round is random, and `cold_start` says why. It uses the project's
    current settings. The open round stays in the label stream until this one is queued; one that
    is still being made is given up.

    Args:
        session: of the transaction that makes the round necessary.
        jobs: takes the request for its first job.
        project_id: of the project.
        cold_start: why it is random, in words.
        trained: whether a training led to it, so that it counts labels from its own beginning. Any
            other round takes the place of the open one and keeps its count, or else new images and
            changed settings could put off the next training for ever.

    Raises:
        ConfigError: the project cannot be served as it is configured.
    """
    project = session.get_one(Project, project_id)
    settings = ProjectConfig.parse(project.labeling_config, project.extra_params).settings
    serving = project.serving_version_id
    if serving is None and cold_start is None:
        cold_start = "There is no trained model yet."
    give_up_unfinished(session, project.id)
    replaced = None if trained else open_round(session, project)
    last = session.scalar(select(func.max(Round.number)).filter_by(project_id=project.id)) or 0
    begun = Round(
        project_id=project.id,
        number=last + 1,
        model_version_id=serving,
        state="selecting" if serving is None else "scoring",
        selector="random" if serving is None else settings.selector,
        cold_start=cold_start if serving is None else None,
        budget=settings.budget,
        counts_from=None if replaced is None else counted_from(replaced),
        # A different seed in each round, or a random round would draw the same ranks again.
        seed=settings.seed + last,
    )
    session.add(begun)
    session.flush()
    job = jobs.request(session, project.id, MADE_BY[begun.state], f"round {begun.number}")
    if begun.cold_start:
        note(session, project.id, f"Round {begun.number} is random: {begun.cold_start}")
    return Begun(begun, job)


def counted_from(current: Round) -> int:
    """Labelled images from which a round's labels count: when it began, or last asked to train."""
    asked = current.training_asked
    return current.labels if asked is None else asked


def open_round(session: Session, project: Project) -> Round | None:
    """The round that the label stream follows."""
    return newest_round(session, project.id, "open")


def unfinished_round(session: Session, project: Project) -> Round | None:
    """The round that is being made."""
    return newest_round(session, project.id, *UNFINISHED)


def newest_round(session: Session, project_id: int, *states: str) -> Round | None:
    """A project's newest round in one of these states."""
    return session.scalars(
        select(Round)
        .where(Round.project_id == project_id, Round.state.in_(states))
        .order_by(Round.number.desc())
    ).first()


def give_up_unfinished(session: Session, project_id: int) -> None:
    """End the rounds that are still being made."""
    unfinished = select(Round).where(Round.project_id == project_id, Round.state.in_(UNFINISHED))
    for given_up in session.scalars(unfinished):
        given_up.state, given_up.closed_at = "closed", now()


def on_job_given_up(session: Session, job: Job) -> None:
    """Give up the round that a job was making when the job fails for good or is cancelled.

    The open round goes on. If another such job is waiting or running, it makes a newer round, which
    stays.
    """
    makers = set(MADE_BY.values())
    if job.kind not in makers:
        return
    others = select(Job.id).where(
        Job.project_id == job.project_id,
        Job.id != job.id,
        Job.kind.in_(makers),
        Job.state.in_(("pending", "running")),
    )
    if session.scalars(others).first() is None:
        give_up_unfinished(session, job.project_id)


def close_older(session: Session, current: Round) -> None:
    """End the rounds before this one, which the label stream now follows."""
    older = select(Round).where(
        Round.project_id == current.project_id,
        Round.number < current.number,
        Round.state != "closed",
    )
    for past in session.scalars(older):
        past.state, past.closed_at = "closed", now()


@dataclass(frozen=True, slots=True)
class UnlabelledPicks:
    """Picks of a round that somebody may still label, by rank.

    Attributes:
        picks: those that nobody has labelled; some were skipped, and are served to others only.
        fresh: the ranks of those that nobody has skipped either, so that everyone is served them.
    """

    picks: list[Pick]
    fresh: frozenset[int]

    def front(self, wanted: int) -> list[Pick]:
        """The first picks, as many as it takes for so many that everyone is served."""
        counted = 0
        for count, pick in enumerate(self.picks):
            if counted == wanted:
                return self.picks[:count]
            counted += pick.rank in self.fresh
        return self.picks


def unlabelled_picks(session: Session, current: Round, *states: str) -> UnlabelledPicks:
    """The round's picks that somebody may still label, by rank; in any or these states."""
    query = select(Pick, Task.skips).where(_is_unlabelled(current)).order_by(Pick.rank)
    if states:
        query = query.where(Pick.state.in_(states))
    rows = session.execute(query).all()
    fresh = frozenset(pick.rank for pick, skips in rows if not skips)
    return UnlabelledPicks([pick for pick, _ in rows], fresh)


def count_fresh_picks(session: Session, current: Round) -> Counter[str]:
    """How many of the round's picks nobody has labelled or skipped, by the state of the pick."""
    is_fresh = _is_unlabelled(current) & (Task.skips == 0)
    query = select(Pick.state, func.count()).where(is_fresh).group_by(Pick.state)
    counts: Counter[str] = Counter()
    for state, count in session.execute(query):
        counts[state] = count
    return counts


def _is_unlabelled(current: Round) -> ColumnElement[bool]:
    """The condition on a round's picks and their tasks; it joins the two tables."""
    return (
        (Pick.round_id == current.id)
        & (Task.project_id == current.project_id)
        & (Task.task_id == Pick.task_id)
        & (Task.annotations == 0)
        & still_served(current.project_id)
    )


def ended_or_deleted(session: Session, current: Round) -> int:
    """How many of the round's queued images Label Studio serves to nobody, though unlabelled."""
    ended = (Task.annotations == 0) & ~still_served(current.project_id)
    query = (
        select(func.count())
        .select_from(Pick)
        .outerjoin(Task, (Task.task_id == Pick.task_id) & (Task.project_id == current.project_id))
        .where(Pick.round_id == current.id, Pick.state == "queued")
        .where(Task.task_id.is_(None) | ended)
    )
    return session.scalar(query) or 0


def forget_older(session: Session, current: Round) -> None:
    """Forget the comparisons of earlier rounds, whose pools were different."""
    older = select(Round.id).where(
        Round.project_id == current.project_id, Round.number < current.number
    )
    session.execute(delete(Comparison).where(Comparison.round_id.in_(older)))


def labels_in(session: Session, current: Round) -> int:
    """How many images a round has had labelled, ended and deleted ones among them."""
    labelled = count_labelled(session, current.project_id) - current.labels
    return max(0, labelled + ended_or_deleted(session, current))
