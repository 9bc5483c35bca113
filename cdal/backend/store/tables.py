"""The tables of the store: what the backend did; the labels themselves are in Label Studio.

A change here needs a migration in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def now() -> datetime:
    """The time in UTC without a zone, which every database stores the same way."""
    return datetime.now(UTC).replace(tzinfo=None)


def seconds_since(then: datetime) -> float:
    """Seconds since a recorded time; the distance, if it is ahead.

    Then the clock was ahead when it was recorded, or another machine's is: a few seconds ahead are
    recent, and days ahead say as little as days ago.
    """
    return abs((now() - then).total_seconds())


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012
        dict[str, Any]: JSON,
        list[Any]: JSON,
        # Numbers from outside may have 63 bits. SQLite's integers always do, and it numbers rows
        # by itself only in a column of type INTEGER.
        int: BigInteger().with_variant(Integer(), "sqlite"),
    }


IGNORE_SKIPPED = "IGNORE_SKIPPED"
"""Label Studio's name for what a project does with skipped tasks: nobody is served them again."""


def _some(name: str, condition: str) -> Index:
    """An index of the tasks of each project that meet a condition."""
    where = text(condition)
    return Index(name, "project_id", "task_id", sqlite_where=where, postgresql_where=where)


class Project(Base):
    """A Label Studio project that this backend is connected to."""

    __tablename__ = "projects"
    __table_args__ = (
        # A copy of a Label Studio has projects of the same uids.
        UniqueConstraint("url", "uid", name="projects_url_uid"),
        {"sqlite_autoincrement": True},  # the number of a forgotten project is not used again
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(String(64))  # "ID.createdAt" of Label Studio
    label_studio_id: Mapped[int] = mapped_column(index=True)
    url: Mapped[str] = mapped_column(Text)  # at which the backend reaches Label Studio
    public_url: Mapped[str | None] = mapped_column(Text)  # at which people do, if different
    access_token: Mapped[str | None] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text, default="")
    labeling_config: Mapped[str] = mapped_column(Text)
    extra_params: Mapped[Any] = mapped_column(JSON)
    queue_version: Mapped[str | None] = mapped_column(String(120))
    view_id: Mapped[int | None]
    second_look_view_id: Mapped[int | None]
    second_look: Mapped[list[int]] = mapped_column(JSON, default=list)  # tasks that this tab shows
    skip_queue: Mapped[str | None] = mapped_column(String(40))  # Label Studio's, for skipped tasks
    changes_seen: Mapped[str | None] = mapped_column(String(40))  # newest task change known
    read_up_to: Mapped[int | None]  # the last id saved by a reading of all tasks; None: no such
    read_since: Mapped[str | None] = mapped_column(String(40))  # the newest change as it began
    looked_at: Mapped[datetime | None]  # when the last sync began
    labels_missing: Mapped[int | None]  # for what is due next, by then; None: many
    training_labels: Mapped[int] = mapped_column(default=0)  # labelled when a training last began
    problem: Mapped[str | None] = mapped_column(Text)  # what keeps the project from being served
    problem_advice: Mapped[str | None] = mapped_column(Text)  # what a person can do about it
    paused_at: Mapped[datetime | None]  # since then, nothing begins by itself
    connected_at: Mapped[datetime | None]  # since then, Label Studio lists the backend for it
    backend_host: Mapped[str | None] = mapped_column(Text)  # as Label Studio calls the backend
    caller: Mapped[str | None] = mapped_column(String(64))  # the address that it calls from
    label_studio_errors: Mapped[int | None]  # jobs that it ended, in total
    webhook_secret: Mapped[str | None] = mapped_column(Text)
    webhook_guarded_at: Mapped[datetime | None]  # since then, Label Studio's webhook carries it
    created_at: Mapped[datetime] = mapped_column(default=now)

    def set_problem(self, problem: str, advice: str) -> bool:
        """Show a problem on the project's pages; returns whether it is a new one."""
        is_new = self.problem != problem
        self.problem, self.problem_advice = problem, advice
        return is_new

    def clear_problem(self) -> None:
        self.problem = self.problem_advice = None


class Task(Base):
    """A task as last read from Label Studio.

    The indexes are small, and let labels and bad images be counted without looking at every task.
    """

    __tablename__ = "tasks"
    __table_args__ = (
        _some("labelled_tasks", "annotations > 0"),
        _some("learnt_tasks", "learnt_as IS NOT NULL"),
        _some("changed_tasks", "label_changed_at IS NOT NULL"),
        _some("tasks_with_bad_images", "image_problem IS NOT NULL"),
    )

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    task_id: Mapped[int] = mapped_column(primary_key=True)
    image: Mapped[Any] = mapped_column(JSON)
    annotations: Mapped[int] = mapped_column(default=0)  # submitted ones
    labelled_as: Mapped[str | None] = mapped_column(String(32))  # hash of the one that counts
    learnt_as: Mapped[str | None] = mapped_column(String(32))  # the same, as a training last had it
    label_changed_at: Mapped[datetime | None]  # when it was last changed after a training
    skips: Mapped[int] = mapped_column(default=0)
    image_problem: Mapped[str | None] = mapped_column(Text)


class Submission(Base):
    """When a task was last labelled, by whom, and how long they took, as Label Studio says."""

    __tablename__ = "submissions"
    __table_args__ = (Index("submissions_over_time", "project_id", "labelled_at"),)

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    task_id: Mapped[int] = mapped_column(primary_key=True)
    labelled_at: Mapped[datetime]
    annotators: Mapped[list[Any]]  # their ids in Label Studio
    seconds: Mapped[float | None]  # per annotation, the mean


class Annotation(Base):
    """A submitted annotation that is compared: with the pre-annotation that it began with, and with
    those of other people.

    Agreements are from 0 to 1, see annotations/agreement.py.
    """

    __tablename__ = "annotations"
    __table_args__ = (Index("annotations_by_task", "project_id", "task_id"),)

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    annotation_id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int]
    annotator: Mapped[int | None]  # their id in Label Studio
    round: Mapped[int | None]  # the number of the round that the pre-annotation was queued in
    kept: Mapped[float | None]  # agreement with the pre-annotation when it was first read
    confidence: Mapped[float | None]  # of the pre-annotation, the mean over its regions
    others: Mapped[float | None]  # mean agreement with other people's annotations of the task
    consensus: Mapped[float | None]  # agreement with what models learn of them
    is_truth: Mapped[bool] = mapped_column(default=False)  # it is the ground truth
    first_read: Mapped[str | None] = mapped_column(String(40))  # its time of change then
    is_changed: Mapped[bool] = mapped_column(default=False)  # somebody has saved it again since


class Annotator(Base):
    """A person who labels, and their name in Label Studio."""

    __tablename__ = "annotators"

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)


UNTRAINED = 0
"""Stands for the number of a model version where a backbone alone has seen the pool."""


class ModelVersion(Base):
    """One trained set of weights, for one control."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("project_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    number: Mapped[int]
    # The name of its control; "" for versions of earlier releases, which served one per project.
    control: Mapped[str] = mapped_column(Text, default="")
    # One per control does, also while its control is removed from the labeling config: when the
    # control comes back, so does its model.
    serves: Mapped[bool] = mapped_column(default=False)
    architecture: Mapped[str] = mapped_column(String(80))
    classes: Mapped[list[Any]]
    fingerprint: Mapped[str] = mapped_column(String(80))
    labels: Mapped[int]  # labelled images that were known, trained on or held out
    metrics: Mapped[dict[str, Any]]  # on the held-out images; by class in ClassMetrics
    serving_metrics: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # of the version before
    origin: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # what its first version began from
    started_from: Mapped[int | None]  # id of the version whose weights it began with
    promoted: Mapped[bool]  # it served when its training ended
    verdict: Mapped[str] = mapped_column(Text)  # why it was promoted or not, in words
    seconds: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(default=now)


class VersionImages(Base):
    """The images that a model version has learnt from, and what it makes of labelled images.

    An image is named by the hash of its file, 16 bytes; the hashes lie one after another.
    """

    __tablename__ = "version_images"

    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    learnt: Mapped[bytes]  # by it, or by a version whose weights it began with
    judged: Mapped[bytes]  # each by a head that had not learnt from it; see loop/version_images.py
    judgements: Mapped[bytes]  # the class of each of these, two bytes, little-endian


class ClassMetrics(Base):
    """What was measured of each class of a model version, and what it confuses.

    With hundreds of classes this is large, so it is apart from the version and read when shown. Of
    the confusion matrix, "cells" has what is not zero: row, column and count.
    """

    __tablename__ = "class_metrics"

    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    per_class: Mapped[dict[str, Any]]
    columns: Mapped[int]
    cells: Mapped[list[Any]]


class Round(Base):
    """A round as one ranking of the pool has it: score the pool, select, queue.

    A round asks for a budget of labels. Each time that its order is refreshed, as under a new
    model, the new ranking is another row of the same number, and the row before it is closed.
    """

    __tablename__ = "rounds"
    __table_args__ = (UniqueConstraint("project_id", "ranking"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    ranking: Mapped[int]  # counts the project's rankings
    number: Mapped[int]  # of the round
    # The main control's, or else the first there is; None before there is a model.
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    beside: Mapped[list[Any]] = mapped_column(default=list)  # ids of other controls' versions
    state: Mapped[str] = mapped_column(String(20))  # scoring, selecting, queueing, open, closed
    selector: Mapped[str] = mapped_column(String(40))
    cold_start: Mapped[str | None] = mapped_column(Text)  # why it has no model, in words
    budget: Mapped[int]
    seed: Mapped[int]
    labels: Mapped[int] = mapped_column(default=0)  # labelled images when the round began
    counts_from: Mapped[int | None]  # the same, if it is known before the selection
    training_asked: Mapped[int | None]  # labelled images when it last requested a training
    editions: Mapped[int] = mapped_column(default=0)  # queue versions written for the round
    queue_version: Mapped[str | None] = mapped_column(String(120))
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    seconds: Mapped[dict[str, Any]] = mapped_column(default=dict)  # by job kind
    created_at: Mapped[datetime] = mapped_column(default=now)
    closed_at: Mapped[datetime | None]


class Pick(Base):
    """An image that a round ranked. A round ranks more than it queues, to top the queue up from.

    Its state is "ranked", "sending" while its prediction is on the way to Label Studio, then
    "queued".
    """

    __tablename__ = "picks"

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int]
    state: Mapped[str] = mapped_column(String(10), default="ranked")
    score: Mapped[float]
    reason: Mapped[dict[str, Any]]


class RandomLabel(Base):
    """An image that was drawn at random and labelled in the round that drew it."""

    __tablename__ = "random_labels"

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    task_id: Mapped[int] = mapped_column(primary_key=True)


class Savings(Base):
    """Labels that selection has saved, estimated after a training; see loop/savings.py."""

    __tablename__ = "savings"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    version: Mapped[int]  # number of the newest model version that it was compared with
    result: Mapped[dict[str, Any]]


class Comparison(Base):
    """How another selector would have ranked a round's pool; requested on a page, never queued."""

    __tablename__ = "comparisons"

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    selector: Mapped[str] = mapped_column(String(40), primary_key=True)
    task_ids: Mapped[list[Any] | None] = mapped_column(JSON)  # by rank; None until it is made
    problem: Mapped[str | None] = mapped_column(Text)  # why there are none, in words


class Export(Base):
    """A model version as a file for other programs; requested on a page, made by the worker."""

    __tablename__ = "exports"

    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    file_format: Mapped[str] = mapped_column(String(20), primary_key=True)
    made_at: Mapped[datetime | None]  # None until it is made
    problem: Mapped[str | None] = mapped_column(Text)  # why it cannot be made, in words


class Prediction(Base):
    """A model version's finding on a task's image, packed; see annotations/packing.py."""

    __tablename__ = "predictions"

    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    task_id: Mapped[int] = mapped_column(primary_key=True)
    finding: Mapped[dict[str, Any]]


class Job(Base):
    """A piece of work and its record."""

    __tablename__ = "jobs"
    __table_args__ = (
        # A burst of requests makes one job: at most one of each kind waits per project.
        Index(
            "one_pending_job",
            "project_id",
            "kind",
            unique=True,
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    kind: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20), index=True)
    asked_by: Mapped[str] = mapped_column(Text)
    progress: Mapped[float] = mapped_column(default=0.0)
    message: Mapped[str] = mapped_column(Text, default="")
    outcome: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]  # when a failed job is to be tried again
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancelled_by: Mapped[str | None] = mapped_column(Text)  # who requested its end, if anybody
    # The worker that began it; no foreign key, since workers are forgotten when they end.
    worker_id: Mapped[int | None]


class Event(Base):
    """Something that an admin may want to read about."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id"), index=True)
    level: Mapped[str] = mapped_column(String(10))
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)


class Worker(Base):
    """A worker that runs, or ran until it died."""

    __tablename__ = "workers"

    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(Text)  # for people
    machine: Mapped[str] = mapped_column(Text)  # identifies this start of it
    pid: Mapped[int]
    folder: Mapped[str] = mapped_column(Text)  # identifies the data folder
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]  # the last heartbeat
