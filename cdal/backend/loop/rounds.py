"""Rounds: how one begins or has its order refreshed, and what is left of it.

A round asks people for a budget of labels. Its order is refreshed as often as the model learns: the
pool is ranked again, and the label stream follows the new ranking, while the round goes on.
"""

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
from cdal.backend.loop.serving import serving_of
from cdal.backend.project_config import ProjectConfig
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.events import note
from cdal.backend.store.queries import count_labelled, still_served
from cdal.backend.store.tables import (
    UNTRAINED,
    Comparison,
    Job,
    ModelVersion,
    Pick,
    Project,
    Round,
    Task,
    now,
)

UNFINISHED = ("scoring", "selecting", "queueing")
"""States of a round that is being made; after them it is "open", and finally "closed"."""

MADE_BY: Mapping[str, JobKind] = {"scoring": "score", "selecting": "select", "queueing": "queue"}
"""The kind of job that an unfinished round in this state waits for."""

TYPICAL = "typiclust"
"""The selector of an order that is made before there is a model, from the pool's features."""

NO_MODEL = "There is no trained model yet."

_QUEUE_VERSION = re.compile(r"CDAL round ([0-9]{1,9})\.[0-9]{1,9}")


def queue_version(current: Round) -> str:
    """What Label Studio sees as the model version of the newest edition of a round's queue."""
    return f"CDAL round {current.number}.{current.editions}"


def round_of_queue(version: str) -> int | None:
    """The number of the round that a queue version belongs to; None if it is not one of ours."""
    match = _QUEUE_VERSION.fullmatch(version)
    return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class OpenRound:
    """How far people are with the round that the label stream follows.

    Attributes:
        number: of the round.
        budget: labels that it asks for.
        labels: labelled images when it began.
        training_asked: labelled images when it last requested a training; None if it has not.
        settled: queued images that were deleted, or that a skip ended: nobody will label them.
        left: ranked images that are neither labelled nor skipped by anybody.
    """

    number: int
    budget: int
    labels: int = 0
    training_asked: int | None = None
    settled: int = 0
    left: int = 1

    @classmethod
    def of(cls, session: Session, current: Round) -> OpenRound:
        return cls(
            number=current.number,
            budget=current.budget,
            labels=current.labels,
            training_asked=current.training_asked,
            settled=ended_or_deleted(session, current),
            left=count_fresh_picks(session, current).total(),
        )

    def has_budget(self, labelled: int) -> bool:
        """Whether, with so many labelled images, it has as many labels as it asks for."""
        return labelled - self.labels + self.settled >= self.budget

    def is_finished(self, labelled: int) -> bool:
        """Whether it then has its budget, or none of its images is left to label."""
        return self.has_budget(labelled) or (self.left == 0 and labelled > self.labels)


class Begun(NamedTuple):
    """A ranking that has just begun.

    Attributes:
        round: its row.
        job: the number of the job that takes its first step.
        is_refresh: whether it refreshes the order of the open round, instead of a new round.
    """

    round: Round
    job: int
    is_refresh: bool

    @property
    def name(self) -> str:
        """What begins, in words."""
        name = f"round {self.round.number}"
        return f"a new order of {name}" if self.is_refresh else name


def begin_round(
    session: Session,
    jobs: Jobs,
    project_id: int,
    cold_start: str | None = None,
    trained: bool = False,
) -> Begun:
    """Begin a project's next round, or refresh the order of the open one if it is not finished.

    Either way the pool is scored with the serving model, ranked and queued, by the project's
    current settings. Without a serving model the first order is random, so that people have a queue
    at once; later ones begin with typical images, if the settings want them. `cold_start` says why
    there is no model. The label stream follows the open round's order until the new one is queued;
    a ranking that is still being made is given up.

    Args:
        session: of the transaction that makes it necessary.
        jobs: takes the request for its first job.
        project_id: of the project.
        cold_start: why there is no model, in words.
        trained: whether a training led to it. A round is finished by labels that were learnt: if
            the last ones came during the training, the round goes on to the next training. And a
            new round then counts labels from its own beginning; any other continues the count of
            the one before, which still waits for its training.

    Raises:
        ConfigError: the project cannot be served as it is configured.
    """
    project = session.get_one(Project, project_id)
    config = ProjectConfig.parse(project.labeling_config, project.extra_params)
    settings = config.settings
    versions = [v.id for v in serving_of(session, project.id, config.controls).values()]
    serving = versions[0] if versions else None
    before = _keep_followed(session, project.id)
    give_up_unfinished(session, project.id)
    typical = serving is None and before is not None and settings.begins_typical
    if serving is None and cold_start is None:
        cold_start = NO_MODEL if typical else _why_random(settings)
    labelled = project.training_labels if trained else count_labelled(session, project.id)
    goes_on = before is not None and not OpenRound.of(session, before).is_finished(labelled)
    rounds, rankings = session.execute(
        select(func.max(Round.number), func.max(Round.ranking)).filter_by(project_id=project.id)
    ).one()
    begun = Round(
        project_id=project.id,
        number=(rounds or 0) + 1,
        ranking=(rankings or 0) + 1,
        model_version_id=serving,
        beside=versions[1:],
        state="selecting" if serving is None and not typical else "scoring",
        selector=settings.selector if serving is not None else TYPICAL if typical else "random",
        cold_start=cold_start if serving is None else None,
        budget=settings.budget,
        # A different seed in each ranking, or a random one would draw the same ranks again.
        seed=settings.seed + (rankings or 0),
    )
    if before is not None and goes_on:
        begun.number, begun.editions = before.number, before.editions
        begun.counts_from, begun.training_asked = before.labels, before.training_asked
    elif before is not None and not trained:
        begun.counts_from = counted_from(before)
    session.add(begun)
    session.flush()
    job = jobs.request(session, project.id, MADE_BY[begun.state], f"round {begun.number}")
    if begun.selector == "random" and begun.cold_start:
        note(session, project.id, f"Round {begun.number} is random: {begun.cold_start}")
    return Begun(begun, job, goes_on)


def _why_random(settings: ProjectSettings) -> str:
    """Why an order is random, and what comes after it."""
    if settings.begins_typical:
        return f"{NO_MODEL} Typical images come first as soon as they are found."
    if settings.first_round == "typical":
        return f"{NO_MODEL} Full training has no backbone to find typical images by."
    return NO_MODEL


def waits_for_typical(session: Session, current: Round) -> bool:
    """Whether an open round is a project's first order, which is random, and no later one was made.

    One that failed is made again; one that somebody cancelled is not.
    """
    if current.model_version_id is not None or current.selector != "random" or current.ranking > 1:
        return False
    newest = select(func.max(Round.ranking)).filter_by(project_id=current.project_id)
    if session.scalar(newest) == current.ranking:
        return True
    jobs = select(Job.state).where(
        Job.project_id == current.project_id, Job.kind.in_(MADE_BY.values())
    )
    return session.scalars(jobs.order_by(Job.id.desc())).first() == "failed"


def versions_of(session: Session, current: Round) -> list[ModelVersion]:
    """The model versions of a round, one per control that had one: the main one's first."""
    ids = [current.model_version_id, *current.beside]
    found = [session.get(ModelVersion, number) for number in ids if number is not None]
    return [version for version in found if version is not None]


def scored_by(session: Session, current: Round) -> int | None:
    """The number of the main model version that scored the pool for a round.

    It is `UNTRAINED` where a backbone alone has seen it, and None where the order is random.
    """
    if current.model_version_id is not None:
        return session.get_one(ModelVersion, current.model_version_id).number
    return UNTRAINED if current.selector == TYPICAL else None


def counted_from(current: Round) -> int:
    """Labelled images from which a round's labels count: when it began, or last asked to train."""
    asked = current.training_asked
    return current.labels if asked is None else asked


def is_refresh(session: Session, current: Round) -> bool:
    """Whether the label stream has followed an earlier order of the same round."""
    earlier = select(Round.id).where(
        _is_of_round(current), Round.ranking < current.ranking, Round.queue_version.is_not(None)
    )
    return session.scalars(earlier).first() is not None


def served_picks(session: Session, current: Round) -> list[tuple[int, bool]]:
    """Images that the round queued and nobody waits for; whether each was drawn at random."""
    rows = session.execute(
        select(Pick.task_id, Pick.reason, Round.selector)
        .join(Round, Round.id == Pick.round_id)
        .outerjoin(Task, (Task.task_id == Pick.task_id) & (Task.project_id == current.project_id))
        .where(_is_of_round(current), Pick.state == "queued")
        .where(Task.task_id.is_(None) | (Task.annotations > 0) | ~still_served(current.project_id))
        .order_by(Round.ranking)
    )
    random = {task_id: is_random(reason, selector) for task_id, reason, selector in rows}
    return list(random.items())


def is_random(reason: Mapping[str, object], selector: str) -> bool:
    """Whether a pick was drawn at random: for its share, or in a random round."""
    drawn = selector == "random" or bool(reason.get("random"))
    return drawn and not reason.get("chosen_by")


def open_round(session: Session, project: Project) -> Round | None:
    """The round that the label stream follows."""
    return newest_round(session, project.id, "open")


def queued_round(session: Session, project: Project) -> Round | None:
    """The round of the queue version that Label Studio serves, in whatever state."""
    if project.queue_version is None:
        return None
    query = select(Round).filter_by(project_id=project.id, queue_version=project.queue_version)
    return session.scalars(query).first()


def _keep_followed(session: Session, project_id: int) -> Round | None:
    """The open round. If its queue is to be written again, it goes on without, and is topped up."""
    is_rewritten = (Round.state == "queueing") & Round.queue_version.is_not(None)
    followed = session.scalars(
        select(Round)
        .where(Round.project_id == project_id, (Round.state == "open") | is_rewritten)
        .order_by(Round.ranking.desc())
    ).first()
    if followed is not None:
        followed.state = "open"
    return followed


def unfinished_round(session: Session, project: Project) -> Round | None:
    """The round that is being made."""
    return newest_round(session, project.id, *UNFINISHED)


def newest_round(session: Session, project_id: int, *states: str) -> Round | None:
    """A project's newest ranking in one of these states."""
    return session.scalars(
        select(Round)
        .where(Round.project_id == project_id, Round.state.in_(states))
        .order_by(Round.ranking.desc())
    ).first()


def give_up_unfinished(session: Session, project_id: int) -> None:
    """End the rankings that are still being made."""
    unfinished = select(Round).where(Round.project_id == project_id, Round.state.in_(UNFINISHED))
    for given_up in session.scalars(unfinished):
        given_up.state, given_up.closed_at = "closed", now()


def give_up_round_of(session: Session, job: Job) -> None:
    """Give up the round that a job was making when the job fails for good or is cancelled.

    The open round goes on, also if somebody cancels the rewriting of its queue. If another such
    job is waiting or running, it makes a newer round, which stays.
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
        if job.state == "cancelled":
            _keep_followed(session, job.project_id)
        give_up_unfinished(session, job.project_id)


def close_older(session: Session, current: Round) -> None:
    """End the rankings before this one, which the label stream now follows.

    Of those, what they queued is remembered; what they only ranked is not needed again.
    """
    older = select(Round).where(
        Round.project_id == current.project_id,
        Round.ranking < current.ranking,
        Round.state != "closed",
    )
    for past in session.scalars(older).all():
        past.state, past.closed_at = "closed", now()
        session.execute(delete(Pick).where(Pick.round_id == past.id, Pick.state == "ranked"))


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
    """How many unlabelled images that the round queued, in any order, are served to nobody."""
    ended = (Task.annotations == 0) & ~still_served(current.project_id)
    query = (
        select(func.count(Pick.task_id.distinct()))
        .join(Round, Round.id == Pick.round_id)
        .outerjoin(Task, (Task.task_id == Pick.task_id) & (Task.project_id == current.project_id))
        .where(_is_of_round(current), Pick.state == "queued")
        .where(Task.task_id.is_(None) | ended)
    )
    return session.scalar(query) or 0


def _is_of_round(current: Round) -> ColumnElement[bool]:
    """The condition that a ranking is of the same round."""
    return (Round.project_id == current.project_id) & (Round.number == current.number)


def forget_older(session: Session, current: Round) -> None:
    """Forget the comparisons of earlier rankings, whose pools were different."""
    older = select(Round.id).where(
        Round.project_id == current.project_id, Round.ranking < current.ranking
    )
    session.execute(delete(Comparison).where(Comparison.round_id.in_(older)))


def labels_in(session: Session, current: Round) -> int:
    """How many images a round has had labelled, ended and deleted ones among them."""
    labelled = count_labelled(session, current.project_id) - current.labels
    return max(0, labelled + ended_or_deleted(session, current))
