"""Jobs, as the API gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from cdal.backend.jobs import JobKind
from cdal.backend.schema.lists import Limited
from cdal.backend.schema.view import View

JobState = Literal["pending", "running", "done", "failed", "cancelled"]


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


class JobsView(View):
    jobs: list[JobView] = Field(description="The newest first.")


class JobsQuery(Limited):
    state: JobState | None = Field(None, description="In this state only.")
    kind: JobKind | None = Field(None, description="Of this kind only.")
