"""What goes over HTTP, as the OpenAPI document describes it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cdal.backend.jobs import JobKind

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


class QueueView(View):
    """The round that the label stream follows, and its images by rank."""

    round: int | None
    picks: list[PickView]


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
