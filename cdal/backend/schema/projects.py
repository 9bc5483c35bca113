"""Projects with their model versions and rounds, as the API gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cdal.backend.schema.jobs import JobView
from cdal.backend.schema.lists import LARGEST_ID
from cdal.backend.schema.view import View
from cdal.backend.state import Doing


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


class RollbackBody(BaseModel):
    """Which model version is to serve."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int = Field(ge=1, le=LARGEST_ID)
