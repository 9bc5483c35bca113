"""What is due: the one place that decides when a training or a round begins by itself.

`read_facts` reads what the decision depends on, and `decide` applies the first of `RULES` that
holds. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from cdal.backend.jobs.gathering import FAR
from cdal.backend.jobs.kinds import JobKind
from cdal.backend.jobs.manager import Jobs
from cdal.backend.loop.rounds import (
    MADE_BY,
    OpenRound,
    count_fresh_picks,
    open_round,
    unfinished_round,
    waits_for_typical,
)
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.queries import (
    any_row,
    changed_labels,
    count_labelled,
    serving_versions,
    waiting,
)
from cdal.backend.store.tables import (
    Job,
    Pick,
    Project,
    Round,
    Submission,
    Task,
    seconds_since,
)

RESUME_AFTER = timedelta(minutes=5)
"""A round that failed is tried again after this long: Label Studio may have been away."""

FEW = 0.05
"""Fewer new labels than this share of all are not worth a training while others may follow."""

PAUSE = timedelta(minutes=2)
"""Nobody has labelled for this long: no other label is about to follow."""


@dataclass(frozen=True, slots=True)
class UnfinishedRound:
    """A round that is being scored, selected or queued.

    Attributes:
        number: of the round.
        next_job: the kind of job that takes it further.
        has_job: whether that job is waiting or running.
    """

    number: int
    next_job: JobKind
    has_job: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the decision depends on. Counts are numbers of images.

    Attributes:
        budget: setting: labels per round.
        min_labels: setting: labels needed before anything is trained.
        train_every: new labels that cause a training before the budget is met; None: none do.
        paused: whether somebody paused the project.
        has_tasks: whether the project has any.
        waiting: whether there are images that somebody can label: not labelled, not ended, without
            a problem.
        labelled: images with a submitted annotation.
        learnt: labelled images when a training last began.
        changed: labels that were corrected, deleted or got another opinion since a training had
            them.
        label_just_came: whether the newest label or change is younger than `PAUSE`.
        serving: whether a model serves.
        training: whether a training is waiting or running.
        round_just_failed: whether the last job of a round failed less than `RESUME_AFTER` ago.
        open: the open round, if there is one.
        unranked: images that nobody has labelled or skipped and the open round has not ranked;
            counted only when nearly all of its ranking is labelled.
        waits_for_typical: whether the open round is in random order until typical images are found.
        unfinished: the round that is being made, if there is one.
        without_model: whether a training has just ended without a new model.
    """

    budget: int
    min_labels: int
    train_every: int | None = None
    paused: bool = False
    has_tasks: bool = False
    waiting: bool = False
    labelled: int = 0
    learnt: int = 0
    changed: int = 0
    label_just_came: bool = False
    serving: bool = False
    training: bool = False
    round_just_failed: bool = False
    open: OpenRound | None = None
    unranked: int = 0
    waits_for_typical: bool = False
    unfinished: UnfinishedRound | None = None
    without_model: bool = False

    @property
    def new_labels(self) -> int:
        """Labels that no training has begun with and none was requested for."""
        asked = None if self.open is None else self.open.training_asked
        return self.labelled - max(self.learnt, asked or 0)

    @property
    def news(self) -> int:
        """New and changed labels."""
        return self.new_labels + self.changed

    @property
    def news_in_words(self) -> str:
        """How many labels are new, or changed."""
        return f"{self.news} new {'or changed ' if self.changed else ''}labels"

    @property
    def typical_is_due(self) -> bool:
        """Whether typical images are to be found; a training needs the machine more."""
        is_early = self.labelled < self.min_labels and not self.serving
        return self.waits_for_typical and is_early and not self.training

    @property
    def round_was_learnt(self) -> bool:
        """Whether the open round was finished when a training last began."""
        return self.open is not None and self.open.is_finished(self.learnt)

    @property
    def more_may_follow(self) -> bool:
        """Whether few labels are new and one just came: training on each would waste hours."""
        few = self.labelled - self.learnt + self.changed < min(self.budget, FEW * self.labelled)
        return few and self.label_just_came

    @property
    def round_earned_training(self) -> bool:
        """Whether the open round's labels are worth a training."""
        if self.open is None:
            return False
        asked = self.open.training_asked
        if asked is not None and self.open.has_budget(asked):
            # A training that failed is not requested again until as many more are labelled.
            enough = self.news >= self.open.budget
        elif self.open.has_budget(self.labelled):
            enough = True
        else:
            used_up = self.open.is_finished(self.labelled) and self.new_labels > 0
            enough = used_up and not self.more_may_follow
        # Changed labels count like new ones, but no round ends because of them.
        enough |= self.changed > 0 and self.news >= self.open.budget
        enough |= self.changed > 0 and not self.waiting and not self.more_may_follow
        early = self.train_every is not None and self.news >= self.train_every
        return enough or (early and self.labelled >= self.min_labels)

    @property
    def labels_earned_training(self) -> bool:
        """Whether, without an open round, the labels are worth a training.

        That is so for the first model, and once no image is left from which to make a round.
        """
        if self.serving and self.waiting:
            return False
        enough = self.labelled >= self.min_labels and self.labelled + self.changed > self.learnt
        return enough and not self.more_may_follow


Step = Literal["train", "begin a round", "resume the round"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes:
        holds: the condition; rows above did not hold.
        step: what to do; None for nothing.
        text: what the job that looked reports, filled in from the facts; None for nothing.
        why: why the step is done, for the record of the job that does it.
    """

    holds: Callable[[Facts], bool]
    step: Step | None = None
    text: str | None = None
    why: str = ""


RULES = (
    # A training that made no model must not leave the people who label without a queue.
    Rule(
        lambda f: (
            f.without_model and f.unfinished is None and (f.open is None or f.round_was_learnt)
        ),
        "begin a round",
        "a round is due without a new model",
    ),
    Rule(lambda f: f.without_model),
    # Whatever else is due waits until the pause ends.
    Rule(lambda f: f.paused, text="the project is paused"),
    # A round that is being made comes to its end first.
    Rule(lambda f: f.unfinished is not None and f.unfinished.has_job),
    Rule(lambda f: f.unfinished is not None and f.round_just_failed),
    Rule(
        lambda f: f.unfinished is not None,
        "resume the round",
        "round {f.unfinished.number} goes on",
        "round {f.unfinished.number}, which had stopped here",
    ),
    # No round is open.
    Rule(lambda f: f.open is None and not f.has_tasks, text="the project has no tasks yet"),
    Rule(
        lambda f: f.open is None and f.labels_earned_training,
        "train",
        "a training is due",
        "{f.labelled} labels and no round to label",
    ),
    Rule(
        lambda f: f.open is None and not f.waiting,
        text="every image that can be used is labelled",
    ),
    Rule(lambda f: f.open is None and f.training, text="a training is under way"),
    Rule(
        lambda f: f.open is None and f.round_just_failed,
        text="a round failed, and is tried again in a few minutes",
    ),
    Rule(lambda f: f.open is None, "begin a round", "a round is due"),
    # A round is open.
    Rule(
        lambda f: f.round_earned_training and not f.training,
        "train",
        "{f.news_in_words}, a training is due",
        "{f.news_in_words} in round {f.open.number}",
    ),
    Rule(
        lambda f: (f.unranked > 0 or f.typical_is_due) and f.round_just_failed,
        text="a round failed, and is tried again in a few minutes",
    ),
    Rule(
        lambda f: f.typical_is_due,
        "begin a round",
        "typical images are to come first",
    ),
    Rule(
        lambda f: f.unranked > 0,
        "begin a round",
        "a round is due for the images that the last one had not ranked",
    ),
    Rule(lambda _: True),  # people label the open round
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done next; the attributes are those of `Rule`, filled in."""

    step: Step | None
    text: str | None
    why: str


def rule_for(facts: Facts) -> Rule:
    """The first rule that holds."""
    return next(rule for rule in RULES if rule.holds(facts))


def decide(facts: Facts) -> Decision:
    """What is due."""
    rule = rule_for(facts)
    text = None if rule.text is None else rule.text.format(f=facts)
    return Decision(rule.step, text, rule.why.format(f=facts))


def labels_missing(facts: Facts) -> int | None:
    """How many more labels, new or changed, make something due; None if more than `FAR`."""
    for more in range(1, FAR + 1):
        current = facts.open
        if current is not None:
            current = replace(current, left=max(0, current.left - more))
        new = replace(facts, labelled=facts.labelled + more, label_just_came=True, open=current)
        changed = replace(facts, changed=facts.changed + more, label_just_came=True)
        if rule_for(new).step is not None or rule_for(changed).step is not None:
            return more
    return None


def read_facts(
    session: Session, project_id: int, settings: ProjectSettings, without_model: bool = False
) -> Facts:
    """What the store knows of a project; `without_model` as in `Facts`."""
    project = session.get_one(Project, project_id)
    current = open_round(session, project)
    return Facts(
        budget=settings.budget,
        min_labels=settings.min_labels,
        train_every=settings.trains_every,
        paused=project.paused_at is not None,
        has_tasks=any_row(session, Task.project_id == project_id),
        waiting=any_row(session, waiting(project_id)),
        labelled=count_labelled(session, project_id),
        learnt=project.training_labels,
        changed=_count(session, changed_labels(project_id)),
        label_just_came=_label_just_came(session, project_id),
        serving=bool(serving_versions(session, project_id)),
        training=Jobs.is_active(session, project_id, "train"),
        round_just_failed=_round_just_failed(session, project_id),
        open=None if current is None else OpenRound.of(session, current),
        unranked=0 if current is None else _count_unranked(session, current, settings),
        waits_for_typical=settings.begins_typical
        and current is not None
        and waits_for_typical(session, current),
        unfinished=_read_unfinished(session, project),
        without_model=without_model,
    )


def _count_unranked(session: Session, current: Round, settings: ProjectSettings) -> int:
    left = count_fresh_picks(session, current)
    if left["ranked"] + left["sending"] > 0 or left["queued"] >= settings.reserve_size:
        return 0
    ranked = select(Pick.task_id).where(Pick.round_id == current.id)
    unranked = waiting(current.project_id) & (Task.skips == 0) & Task.task_id.not_in(ranked)
    return _count(session, unranked)


def _read_unfinished(session: Session, project: Project) -> UnfinishedRound | None:
    unfinished = unfinished_round(session, project)
    if unfinished is None:
        return None
    kind = MADE_BY[unfinished.state]
    return UnfinishedRound(unfinished.number, kind, Jobs.is_active(session, project.id, kind))


def _label_just_came(session: Session, project_id: int) -> bool:
    newest = select(func.max(Submission.labelled_at)).filter_by(project_id=project_id)
    changed = select(func.max(Task.label_changed_at)).where(
        Task.project_id == project_id, Task.label_changed_at.is_not(None)
    )
    # A clock that is ahead must not put a training off for hours.
    times = (session.scalar(newest), session.scalar(changed))
    return any(time is not None and seconds_since(time) < PAUSE.total_seconds() for time in times)


def _round_just_failed(session: Session, project_id: int) -> bool:
    last = session.scalars(
        select(Job)
        .where(Job.project_id == project_id, Job.kind.in_(MADE_BY.values()))
        .order_by(Job.id.desc())
    ).first()
    if last is None or last.finished_at is None or last.state != "failed":
        return False
    return seconds_since(last.finished_at) < RESUME_AFTER.total_seconds()


def _count(session: Session, condition: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).where(condition)) or 0
