"""Active learning by Contextual Diversity as a model of label-studio-ml, version 2.

label-studio-ml's server answers Label Studio; what it answers comes from label-studio-cdal. The
jobs are done by `cdal worker`, on the same MODEL_DIR.
"""

from __future__ import annotations

import json
from typing import Any

from flask import request
from label_studio_ml.model import LabelStudioMLBase

from cdal.backend.config import server_config
from cdal.backend.errors import RefusedError
from cdal.backend.label_studio.data import moment_of, unix_second
from cdal.backend.label_studio.webhook import HEADER, claimed_project, may_hint
from cdal.backend.loop.given_up import on_job_given_up
from cdal.backend.services import Services
from cdal.backend.store.queries import namesakes
from cdal.backend.web.model import CDALModel as Model
from cdal.backend.web.model import event_named

SERVICES = Services.open(server_config(), on_job_given_up)


class CDALModel(LabelStudioMLBase):
    """One project's model, made for each request.

    `get`, `set`, `label_interface` and `extra_params` are those of the base class.
    """

    model: Model | None = None
    """The project's model; None if the project is not connected."""

    def setup(self) -> None:
        """Connect the project if this is a call of /setup, and otherwise find it."""
        body = request.get_json()
        if request.path == "/setup":
            # The base class drops the token, the address and when the project was created.
            self.model = Model.setup(SERVICES, body, request.host, request.remote_addr or "")
        else:
            with SERVICES.store.reading() as session:
                found = namesakes(session, _uid(body))
            self.model = Model(SERVICES, found[0]) if found else None
        self.set("model_version", self.model.model_version if self.model else "")

    def set_extra_params(self, extra_params: Any) -> None:
        """Keep the project's settings as JSON text, as the base class reads them.

        Label Studio sends an object, which the base class does not keep.
        """
        is_text = isinstance(extra_params, str)
        super().set_extra_params(extra_params if is_text else json.dumps(extra_params))

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **_: Any
    ) -> list[Any]:
        """One prediction per task; none if the project is not connected."""
        if self.model is None:
            return [[] for _ in tasks]
        return self.model.predict(tasks, context)

    def fit(self, event: str, data: Any, **_: Any) -> str:
        """Request the job that an event causes: labels are read back from Label Studio."""
        if self.model is None:
            return "this project is not connected"
        event = event_named(event)
        is_sent = event == "START_TRAINING"
        if not is_sent and not may_hint(self.model.project, request.headers.get(HEADER)):
            return "this event does not come from the project's webhook"
        return f"job {self.model.fit(event)}"


def hear_event() -> tuple[str, int] | None:
    """Hear an event without content, which label-studio-ml's server cannot relate to a project.

    The webhook sends no other, as soon as it carries the project's secret.
    """
    body = request.get_json(silent=True)
    if request.path != "/webhook" or not isinstance(body, dict) or "project" in body:
        return None
    header = request.headers.get(HEADER)
    with SERVICES.store.reading() as session:
        project = claimed_project(session, header)
    if project is None or not may_hint(project, header):
        return "This event does not come from the project's webhook.", 401
    try:
        event = event_named(body.get("action"))
    except RefusedError as error:
        return str(error), 400
    return f"job {Model(SERVICES, project).fit(event)}", 200


def _uid(body: Any) -> str:
    """Label Studio's "ID.createdAt" of the project that a call is about."""
    project = body.get("project")
    if not isinstance(project, dict):
        return str(project)
    created = moment_of(project.get("created_at"))  # of an event
    return "" if created is None else f"{project.get('id')}.{unix_second(created)}"
