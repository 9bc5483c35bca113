"""Whether Label Studio still lists this backend, with which settings, and the webhook's secret.

Anybody who reaches `/setup` can claim anything; only what Label Studio itself says counts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from cdal.backend.errors import ConfigError, LabelStudioError
from cdal.backend.jobs.gathering import POLL
from cdal.backend.label_studio.data import MLBackendInfo
from cdal.backend.label_studio.webhook import HEADER, REFUSED, make_secret, names_its_project
from cdal.backend.logs import never_show
from cdal.backend.loop.context import Context
from cdal.backend.project_config import ProjectConfig
from cdal.backend.store.events import note
from cdal.backend.store.tables import Project, now

log = logging.getLogger(__name__)

NOT_LISTED = "Label Studio lists no ML backend for this project, so nothing is done for it."
CONNECT = "connect the backend in the project's Model settings in Label Studio."

_MAY_NOT = frozenset({401, 403, 404, 405})


def is_connected(work: Context) -> bool:
    """Whether to work for the project; also updates its webhook and its settings.

    Label Studio is asked once per minute, and at every job until it lists the backend: when
    `/setup` is called for the first time, it does not yet.
    """
    project = work.project
    known = project.connected_at is not None and project.webhook_guarded_at is not None
    if known and work.job.asked_by not in (POLL, SET_UP, REFUSED):
        return True
    try:
        backends = work.client.ml_backends()
    except LabelStudioError as error:
        if error.status in _MAY_NOT:  # the token may only label; nothing can be updated
            log.debug("project %d: %s", project.id, error)
            return True
        raise
    _record(work, listed=bool(backends))
    ours = _ours(backends, project.backend_host)
    if ours is not None:
        if work.job.asked_by == POLL:
            _read_settings(work, ours)
        _guard_webhook(work, ours)
    return bool(backends)


def _ours(backends: Sequence[MLBackendInfo], host: str | None) -> MLBackendInfo | None:
    """The one of a project's ML backends that is this one: the only one, or by its address."""
    if len(backends) == 1:
        return backends[0]
    return next((b for b in backends if host is not None and urlsplit(b.url).netloc == host), None)


def _record(work: Context, listed: bool) -> None:
    if listed == (work.project.connected_at is not None):
        return
    with work.services.store.transaction() as session:
        project = session.get_one(Project, work.project.id)
        if listed:
            project.connected_at = now()
            if project.problem == NOT_LISTED:
                project.clear_problem()
            return
        project.connected_at = None
        project.set_problem(NOT_LISTED, CONNECT)
        note(session, project.id, NOT_LISTED, "warning")


def _read_settings(work: Context, ours: MLBackendInfo) -> None:
    """Take over the settings typed in Label Studio, in case somebody else set others here."""
    try:
        config = ProjectConfig.accept(
            work.project.labeling_config, ours.extra_params, work.services.config
        )
    except ConfigError:
        return  # Label Studio's own call of `/setup` says what is wrong with them
    if config.settings == work.settings:
        return
    with work.services.store.transaction() as session:
        project = session.get_one(Project, work.project.id)
        project.extra_params = ours.extra_params
        note(
            session,
            project.id,
            "The settings were not those typed in Label Studio, and were replaced by them",
            "warning",
        )


def _guard_webhook(work: Context, ours: MLBackendInfo) -> None:
    """Make Label Studio's webhook carry the secret, and nothing else."""
    url = f"{ours.url.rstrip('/')}/webhook"
    try:
        found = [webhook for webhook in work.client.webhooks() if webhook.url == url]
        if not found:
            return
        secret = _secret(work)
        lacking = [webhook for webhook in found if webhook.headers.get(HEADER) != secret]
        for webhook in found:
            guarded = replace(
                webhook, headers={**webhook.headers, HEADER: secret}, sends_payload=False
            )
            if guarded != webhook:
                work.client.change_webhook(guarded)
    except LabelStudioError as error:
        # Without the secret, the webhook is still taken as a hint.
        log.warning("project %d: its webhook bears no secret: %s", work.project.id, error)
        return
    if lacking or work.project.webhook_guarded_at is None:
        with work.services.store.transaction() as session:
            project = session.get_one(Project, work.project.id)
            again = "again " if project.webhook_guarded_at is not None else ""
            project.webhook_guarded_at = now()
            note(session, project.id, f"Label Studio's webhook {again}carries the secret")


def _secret(work: Context) -> str:
    """The project's secret, stored before Label Studio gets it."""
    with work.services.store.transaction() as session:
        project = session.get_one(Project, work.project.id)
        secret = project.webhook_secret
        if secret is None or not names_its_project(project):
            secret = project.webhook_secret = make_secret(project.id)
            never_show(secret)
        return secret


SET_UP = "set up"
