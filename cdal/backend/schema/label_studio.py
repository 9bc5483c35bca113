"""What Label Studio sends and is answered."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cdal.backend.schema.view import View


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
