"""What goes over HTTP, as the OpenAPI document describes it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cdal.backend.jobs import JobKind
from cdal.backend.settings import SelectorName
from cdal.backend.state import Doing

JobState = Literal["pending", "running", "done", "failed", "cancelled"]
Level = Literal["info", "warning", "error"]
LARGEST_ID = 2**31 - 1


class View(BaseModel):
    """Something that is answered."""

    model_config = ConfigDict(extra="forbid")


class ErrorView(View):
    """Why it was not done."""

    error: str = Field(description="A sentence for people.")


class JobView(View):
    """A piece of work and its record."""

    id: int
    project: int
    kind: JobKind
    state: JobState
    asked_by: str
    cancelled_by: str | None
    progress: float = Field(description="Share that is done, from 0 to 1.")
    seconds_left: float | None = Field(
        description="Of a job that runs, by its pace so far; null where that is not known yet."
    )
    message: str = Field(description="What it does now.")
    outcome: str | None = Field(description="What came of it.")
    error: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class VersionView(View):
    """A model version."""

    number: int
    architecture: str
    labels: int = Field(description="Labelled images that were known when it was trained.")
    metric: str | None
    value: float | None = Field(description="The metric on the held-out images.")
    promoted: bool = Field(description="Whether it served when its training ended.")
    verdict: str = Field(description="Why it did or did not.")
    seconds: float
    created_at: datetime


class RoundView(View):
    """A round: the pool scored, selected, queued and labelled."""

    number: int
    state: Literal["scoring", "selecting", "queueing", "open", "closed"]
    version: int | None = Field(description="The model version; null where the round is random.")
    selector: str
    cold_start: str | None = Field(description="Why the round is random.")
    budget: int
    labels: int = Field(description="Labelled images when it was selected.")
    queue_version: str | None
    warnings: list[str]
    seconds: dict[str, float] = Field(description="Seconds its jobs took, by kind.")


class StateView(View):
    """What a project is doing."""

    doing: Doing
    text: str = Field(description="All of it, in words.")
    share: float | None = Field(description="Of the job that runs, from 0 to 1.")
    seconds_left: float | None = Field(description="Until that job ends, by its pace so far.")


class ProgressView(View):
    """How far people are with the open round."""

    round: int
    labels: int = Field(description="Images labelled or skipped in it.")
    budget: int


class MetricView(View):
    """The serving version's metric, and how it moved."""

    name: str
    value: float
    images: int | None = Field(description="Held-out images that it was measured on.")
    before: float | None = Field(
        description="What the version before it had on the same images; null where there is none."
    )
    moved: float | None


class ProjectView(View):
    """A project and what it is at."""

    id: int = Field(description="The backend's own number, which the other paths take.")
    label_studio_id: int
    url: str
    title: str
    tasks: int
    labelled: int
    queue_version: str | None
    serving_version: int | None
    paused_at: datetime | None
    problem: str | None = Field(description="What an admin should see to.")
    state: StateView
    progress: ProgressView | None = Field(description="Null where no round is open.")
    metric: MetricView | None = Field(description="Null where nothing has been measured.")
    versions: list[VersionView]
    rounds: list[RoundView]
    jobs: list[JobView] = Field(description="The newest 20, the newest first.")


class ProjectsView(View):
    projects: list[ProjectView]


class PickView(View):
    """An image that a round ranked."""

    rank: int
    task: int
    state: Literal["ranked", "sending", "queued"]
    score: float
    reason: dict[str, Any]
    labelled: bool
    skipped: bool


class QueueView(View):
    """The round that the label stream follows, and its images by rank."""

    round: int | None
    selector: str | None
    picks: list[PickView]


class ClassView(View):
    """How well a class is known."""

    name: str
    count: int = Field(description="Held-out images, pixels or boxes of it.")
    score: float | None = Field(description="Recall, IoU or average precision; null without any.")


class ConfusionView(View):
    """A class that is taken for another."""

    true: str
    taken_for: str
    count: int
    share: float = Field(description="Of all that are of the true class.")


class QualityView(View):
    """What was measured of a model version on the held-out images."""

    version: int
    metric: str | None
    images: int
    values: dict[str, float]
    classes: list[ClassView]
    matrix: list[list[int]] = Field(
        description="Rows are what it is, columns what it is taken for; for detectors, the last "
        "column is for boxes where nothing was found."
    )
    confused: list[ConfusionView] = Field(description="The worst, the worst first.")


class CurvePointView(View):
    labels: int
    value: float


class SavingsView(View):
    """How many labels selection has saved, by the setting `random_share`."""

    version: int | None = Field(description="The newest model version that was compared.")
    known: bool
    why: str | None = Field(description="Why it is not known yet.")
    metric: str | None = None
    images: int | None = Field(None, description="Held-out images that were drawn at random.")
    random: CurvePointView | None = Field(None, description="The model of random labels alone.")
    curve: list[CurvePointView] = Field([], description="The versions that served, on them.")
    needed: float | None = Field(None, description="Selected labels worth the random ones.")
    saved: float | None = None
    low: float | None = Field(None, description="Where the 90% interval begins.")
    high: float | None = Field(None, description="Where it ends.")
    at_least: bool | None = Field(None, description="Whether the estimate is only a lower bound.")
    at_most: bool | None = Field(None, description="Whether it is only an upper bound.")


class BarView(View):
    from_: datetime = Field(alias="from")
    labels: int


class OverTimeView(View):
    step_seconds: int
    bars: list[BarView]


class AnnotatorView(View):
    """Somebody who labels."""

    number: int = Field(description="Label Studio's.")
    name: str
    labels: int
    median_seconds: float | None = Field(description="That an image takes.")
    last: datetime


class ThroughputView(View):
    """How fast people label."""

    labels: int
    last_hour: int
    last_day: int
    median_seconds: float | None
    over_time: OverTimeView
    annotators: list[AnnotatorView]


class SelectorView(View):
    """What a selector would ask for."""

    name: str
    ready: bool
    problem: str | None
    picks: list[int] = Field(description="Tasks by rank.")
    classes: int | None = Field(description="That the model sees in them.")
    entropy: float | None = Field(description="Bits, the mean over the images.")
    diversity: float | None = Field(description="Nats, the mean over the pairs of images.")


class ComparisonView(View):
    """What two selectors would ask for in the open round."""

    round: int
    budget: int
    selectors: list[SelectorView]
    common: int | None = Field(description="Images that both ask for.")


class PointView(View):
    """An image on the pool's map."""

    task: int
    x: float
    y: float
    class_: int = Field(alias="class", description="Index of its most probable class.")
    entropy: float
    state: Literal["labelled", "queued", "skipped", "unlabelled"]
    round: int | None = Field(description="That queued it last.")


class PoolView(View):
    """The pool's map."""

    version: int
    images: int
    classes: list[str]
    counts: dict[str, int]
    points: list[PointView]


class JobsView(View):
    jobs: list[JobView] = Field(description="The newest first.")


class EventView(View):
    """Something that an admin may want to read about."""

    id: int
    project: int | None
    level: Level
    text: str
    created_at: datetime


class EventsView(View):
    events: list[EventView] = Field(description="The newest first.")


class DoneView(View):
    """What happens now."""

    text: str = Field(description="A sentence for people.")
    job: int | None = Field(description="The job that does it, if one does.")


class Limited(BaseModel):
    """How much of a list is asked for."""

    model_config = ConfigDict(extra="forbid")

    project: int | None = Field(None, ge=0, le=LARGEST_ID, description="Of this project only.")
    limit: int = Field(100, ge=1, le=1000, description="At most so many.")
    before: int | None = Field(
        None, ge=0, le=LARGEST_ID, description="Older than the one of this number."
    )


class JobsQuery(Limited):
    state: JobState | None = Field(None, description="In this state only.")
    kind: JobKind | None = Field(None, description="Of this kind only.")


class EventsQuery(Limited):
    level: Level | None = Field(None, description="Of this level only.")


class ComparisonQuery(BaseModel):
    """Which selectors to compare."""

    model_config = ConfigDict(extra="forbid")

    a: SelectorName = Field("cdal-cs", description="One selector.")
    b: SelectorName = Field("entropy", description="Another.")


class RollbackBody(BaseModel):
    """Which model version is to serve."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int = Field(ge=1, le=LARGEST_ID)


class Loose(BaseModel):
    """What Label Studio sends; more than is named here may come along and is not looked at."""

    model_config = ConfigDict(extra="allow")


class SetupBody(Loose):
    project: str = Field(description='"ID.createdAt" of the project.', examples=["12.1700000000"])
    label_config: str = Field(alias="schema", description="The labeling config.")
    hostname: str | None = None
    access_token: str | None = None
    extra_params: Any = Field(None, description="The project's settings, see the README.")


class PredictBody(Loose):
    tasks: list[dict[str, Any]]
    project: str
    label_config: str | None = None
    params: Any = None


class WebhookBody(Loose):
    action: str = Field(examples=["ANNOTATION_CREATED", "START_TRAINING"])
    project: Any = Field(None, description="The whole project, of which its id is read.")


class JobStatusBody(Loose):
    job: str | int


class ValidateBody(Loose):
    config: str = Field(description="The labeling config.")


class CheckView(View):
    name: Literal["store", "queue", "worker", "disk", "label studio"]
    ok: bool
    text: str


class ReadyView(View):
    ready: bool
    checks: list[CheckView]


class HealthView(View):
    status: Literal["UP"]
    model_class: str


class SetupView(View):
    model_version: str = Field(description="The queue version; empty before the first round.")


class PredictView(View):
    results: list[Any] = Field(description="One a task, in their order.")


class WebhookView(View):
    status: Literal["accepted", "ignored"]
    job: str | None = None
    reason: str | None = None


class VersionsView(View):
    versions: list[str]


class JobStatusView(View):
    job_status: str
    progress: float
    message: str
    error: str
    created_at: str
    finished_at: str | None


class OkView(View):
    status: Literal["ok"]
