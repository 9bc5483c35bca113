"""Label Studio's ML backend protocol, as its own client code defines it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from flask import Blueprint, Response, g, jsonify, redirect, request, url_for
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from werkzeug.wrappers import Response as WerkzeugResponse

from cdal.backend.errors import ConfigError, RefusedError
from cdal.backend.label_studio.data import moment_of, unix_second
from cdal.backend.label_studio.webhook import HEADER, REFUSED, claimed_project, may_hint
from cdal.backend.logs import set_log_context
from cdal.backend.project_config import ProjectConfig
from cdal.backend.reports.view import ErrorView, View
from cdal.backend.store.queries import is_id, namesakes
from cdal.backend.store.tables import Job, Project, Round
from cdal.backend.web.model import CDALModel, event_named
from cdal.backend.web.openapi import PROTOCOL, describe
from cdal.backend.web.pages.site import is_browser
from cdal.backend.web.request import json_body, services
from cdal.backend.web.setup import is_uid


class Loose(BaseModel):
    """What Label Studio sends; other fields are ignored."""

    model_config = ConfigDict(extra="allow")


class SetupBody(Loose):
    project: str = Field(description='"ID.createdAt" of the project.', examples=["12.1700000000"])
    label_config: str = Field(alias="schema", description="The labeling config.")
    hostname: str | None = None
    access_token: str | None = None
    extra_params: Any = Field(None, description="The project's settings, see docs/settings.md.")


class PredictBody(Loose):
    tasks: list[dict[str, Any]]
    project: str
    label_config: str | None = None
    params: Any = None


class WebhookBody(Loose):
    action: str = Field(examples=["ANNOTATION_CREATED", "START_TRAINING"])
    project: Any = Field(
        None,
        description="The whole project; its id and created_at are read. Without it, the secret in "
        "the header tells which project it is.",
    )


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
    results: list[Any] = Field(description="One per task, in the same order.")


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


JOB_STATUS = {
    "pending": "queued",
    "running": "started",
    "done": "finished",
    "failed": "failed",
    "cancelled": "canceled",
}

NUMBER = re.compile(r"[0-9]{1,15}")

protocol = Blueprint("protocol", __name__)


@protocol.get("/")
@describe(PROTOCOL, HealthView)
def root() -> Response | WerkzeugResponse:
    """Whether the web process is alive; browsers are redirected to the pages."""
    # Label Studio calls /health; people open this address in a browser.
    return redirect(url_for("pages.projects")) if is_browser() else health()


@protocol.get("/health")
@describe(PROTOCOL, HealthView)
def health() -> Response:
    """Whether the web process is alive."""
    return jsonify(status="UP", model_class=CDALModel.__name__)


@protocol.post("/setup")
@describe(PROTOCOL, SetupView, SetupBody)
def setup() -> Response:
    """Connect a project, or update its settings."""
    model = CDALModel.setup(services(), json_body(), request.host, request.remote_addr or "")
    return jsonify(model_version=model.model_version)


@protocol.post("/predict")
@describe(PROTOCOL, PredictView, PredictBody)
def predict() -> Response:
    """Predict tasks."""
    body = json_body()
    tasks = body.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise RefusedError('The field "tasks" must be a list of tasks.')
    project = _project(body.get("project"))
    if project is None:  # the same answer as before the first round: it tells nobody what exists
        return jsonify(results=[[] for _ in tasks])
    params = body.get("params")
    context = params.get("context") if isinstance(params, dict) else None
    return jsonify(results=CDALModel(services(), project).predict(tasks, context))


@protocol.post("/webhook")
@describe(PROTOCOL, WebhookView, WebhookBody)
def webhook() -> Response | tuple[Response, int]:
    """Receive an event from Label Studio."""
    body = json_body()
    event = event_named(body.get("action"))
    named = body.get("project")
    hinted = _claimed() if named is None else _hinted(named)
    heard = [project for project in hinted if _may_hint(project, event)]
    if event == "START_TRAINING":  # it carries no secret
        heard = [p for p in heard if p is _of_caller([q for q in heard if q.uid == p.uid])]
    known = {project.uid for project in heard}
    for project in hinted:
        # The webhook may have lost its secret. A look that waited would hold up those of others.
        if project.uid not in known and services().strangers.permits(project.id):
            services().jobs.ask(project.id, "sync", REFUSED)
    if hinted and not heard:
        return jsonify(error="This event does not come from the project's webhook."), 401
    jobs = [CDALModel(services(), project).fit(event) for project in heard]
    if not jobs:
        return jsonify(status="ignored", reason="this project is not connected")
    return jsonify(status="accepted", job=str(jobs[0]))


@protocol.get("/versions")
@describe(PROTOCOL, VersionsView)
def versions() -> Response:
    """The newest queue versions."""
    with services().store.reading() as session:
        names = session.scalars(
            select(Round.queue_version)
            .where(Round.queue_version.is_not(None))
            .order_by(Round.id.desc())
            .limit(100)
        )
        return jsonify(versions=list(names))


@protocol.post("/job_status")
@describe(PROTOCOL, JobStatusView, JobStatusBody, also={410: ErrorView})
def job_status() -> tuple[Response, int] | Response:
    """The state of a job."""
    number = str(json_body().get("job"))
    with services().store.reading() as session:
        job = session.get(Job, int(number)) if NUMBER.fullmatch(number) else None
    if job is None:
        return jsonify(error=f"There is no job {number[:20]}."), 410
    return jsonify(
        job_status=JOB_STATUS[job.state],
        progress=job.progress,
        message=job.message,
        error=job.error or "",
        created_at=job.created_at.isoformat(),
        finished_at=job.finished_at.isoformat() if job.finished_at else None,
    )


@protocol.post("/validate")
@describe(PROTOCOL, OkView, ValidateBody)
def validate() -> Response:
    """Check whether a labeling config can be served."""
    config = json_body().get("config")
    if not isinstance(config, str):
        raise RefusedError('The field "config" must be a labeling config.')
    try:
        ProjectConfig.parse(config, None)
    except ConfigError as error:
        raise RefusedError(str(error)) from None
    return jsonify(status="ok")


@protocol.post("/delete")
@describe(PROTOCOL, OkView, Loose)
def delete() -> Response:
    """Acknowledge that a project was disconnected."""
    # Everything is kept, in case the project is connected again.
    json_body()
    return jsonify(status="ok")


@protocol.post("/duplicate_model")
@describe(PROTOCOL, OkView, Loose)
def duplicate_model() -> Response:
    """Acknowledge that a project was copied."""
    # A project's model depends only on its own labels; there is nothing to copy.
    json_body()
    return jsonify(status="ok")


def _project(uid: object) -> Project | None:
    """The connected project that a call is about; calls other than `/setup` name no server."""
    with services().store.reading() as session:
        found = namesakes(session, uid) if is_uid(uid) else []
    if not found:
        return None
    project = _of_caller(found)
    set_log_context(project=project.id)
    return project


def _of_caller(projects: Sequence[Project]) -> Project:
    """One of several servers' projects with the same uid: the caller's own, or else the oldest.

    Label Studio calls `/setup` right before, so its address is known.
    """
    return next((p for p in projects if p.caller == request.remote_addr), projects[0])


def _claimed() -> list[Project]:
    """The project that an event without content claims to be of by its header."""
    with services().store.reading() as session:
        found = claimed_project(session, request.headers.get(HEADER))
    return [] if found is None else [found]


def _hinted(project: object) -> list[Project]:
    """The connected projects an event may concern: events do not name their server."""
    if not isinstance(project, dict) or not is_id(project.get("id")):
        return []
    uid = _uid(project)
    with services().store.reading() as session:
        query = select(Project).filter_by(label_studio_id=project["id"]).order_by(Project.id)
        found = list(session.scalars(query))
    return [p for p in found if uid is None or p.uid == uid]


def _may_hint(project: Project, event: str) -> bool:
    """Whether the call may come from Label Studio.

    Label Studio starts trainings with the password, where one is set, and without the secret.
    """
    if event == "START_TRAINING" or g.has_password:
        return True
    return may_hint(project, request.headers.get(HEADER))


def _uid(project: dict[str, Any]) -> str | None:
    """Label Studio's "ID.createdAt" of the project in an event."""
    created = moment_of(project.get("created_at"))
    return None if created is None else f"{project['id']}.{unix_second(created)}"
