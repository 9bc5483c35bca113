"""Connecting a project: what `/setup` is told, checked and remembered."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from cdal.backend.addresses import is_servers, resolve
from cdal.backend.errors import ConfigError, LabelStudioError, RefusedError
from cdal.backend.label_studio.client import LabelStudioClient
from cdal.backend.label_studio.data import ProjectInfo
from cdal.backend.logs import never_show
from cdal.backend.loop.connection import SET_UP
from cdal.backend.project_config import ProjectConfig
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.queries import find
from cdal.backend.store.tables import Project

CHECK_SECONDS = 1.2
"""For a token, of which there are two; Label Studio waits 3 seconds for the answer to `/setup`."""

TRUSTED_SECONDS = 600.0
"""How long a token that worked is not tried again: `/setup` comes several times a minute."""

# One spelling alone: any other would be another project here, and the same one in Label Studio.
_UID = re.compile(r"[1-9][0-9]{0,8}\.[1-9][0-9]{0,19}")


@dataclass(frozen=True, slots=True)
class SetupRequest:
    """What Label Studio sends to `/setup`."""

    uid: str
    labeling_config: str
    hostname: str
    access_token: str
    extra_params: Any
    host: str = ""

    @classmethod
    def of(cls, body: Mapping[str, Any], host: str = "") -> SetupRequest:
        """Read the body of a call, whatever it is; `host` is how the caller names the backend.

        Raises:
            RefusedError: a field is missing or is no text.
        """
        uid = body.get("project")
        if not isinstance(uid, str) or not _UID.fullmatch(uid):
            raise RefusedError(
                'The field "project" must be Label Studio\'s, such as "12.1700000000".'
            )
        texts = {}
        for name in ("schema", "hostname", "access_token"):
            value = body.get(name) or ""
            if not isinstance(value, str) or "\0" in value:
                raise RefusedError(f'The field "{name}" must be a text.')
            texts[name] = value
        return cls(
            uid,
            texts["schema"],
            texts["hostname"],
            texts["access_token"],
            body.get("extra_params"),
            host[:200],
        )


_checked: dict[tuple[str, str, str], float] = {}


def connect(services: Services, request: SetupRequest) -> Project:
    """Check that a project can be served, and remember it.

    Raises:
        RefusedError: it cannot; the message says why and what to do.
    """
    try:
        ProjectConfig.accept(request.labeling_config, request.extra_params, services.config)
    except ConfigError as error:
        raise RefusedError(str(error)) from None
    url = _address(services, request.hostname)
    token = _working_token(services, request, url)
    never_show(token)
    with services.store.reading() as session:
        known = find(session, request.uid)
    if known is not None and (
        known.url == url
        and known.access_token == token
        and known.labeling_config == request.labeling_config
        and known.extra_params == request.extra_params
    ):
        if known.connected_at is None:  # when it called first, it did not list the backend yet
            services.jobs.ask(known.id, "sync", SET_UP, services.looks)
        return known
    with services.store.transaction() as session:
        project = find(session, request.uid)
        if project is None:
            project = Project(
                uid=request.uid,
                label_studio_id=int(request.uid.split(".")[0]),
                url=url,
                labeling_config=request.labeling_config,
                extra_params=request.extra_params,
            )
            session.add(project)
            session.flush()
            note(session, project.id, f"Connected to project {project.label_studio_id} of {url}")
        project.url, project.access_token = url, token
        project.labeling_config = request.labeling_config
        project.extra_params = request.extra_params
        project.backend_host = request.host or None
        services.jobs.request(session, project.id, "sync", SET_UP)
    services.jobs.send_pending(project.id)
    return project


def _address(services: Services, hostname: str) -> str:
    # An address that the operator set is not overruled by whoever calls.
    url = (services.config.label_studio_url or hostname).rstrip("/")
    try:
        parts = urlsplit(url)
    except ValueError:  # an address such as http://[
        parts = urlsplit("")
    if "@" in parts.netloc:
        raise RefusedError(
            "Label Studio's address holds a user name or password; leave them out of "
            "LABEL_STUDIO_URL, and set LABEL_STUDIO_API_KEY."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RefusedError(
            f'"{url}" is not the address of a Label Studio; set LABEL_STUDIO_URL for the backend.'
        )
    return url


def _check_host(url: str) -> None:
    """Refuse addresses at which there are no Label Studios, but a cloud's or a router's secrets."""
    parts = urlsplit(url)
    try:
        found = resolve(parts.hostname or "", parts.port or 80)
        addresses = [ip_address(address) for address in found]
    except (OSError, ValueError):
        return  # to connect to it fails, too
    if any(not is_servers(address) for address in addresses):
        raise RefusedError(
            f'"{url}" has an address that no Label Studio has; set LABEL_STUDIO_URL for the '
            "backend."
        )


def _check_age(uid: str, info: ProjectInfo) -> None:
    """Refuse a project that is named as another one of the same number was."""
    _, _, created = uid.partition(".")
    if info.created_at is not None and int(created) != int(info.created_at.timestamp()):
        raise RefusedError(
            f"Project {uid.partition('.')[0]} of Label Studio was created at another time than the "
            'field "project" says.'
        )


def _told(services: Services, error: LabelStudioError) -> str:
    """An error without what the server said, if anybody may have named that server."""
    if services.config.label_studio_url is not None:
        return str(error)
    return "it could not be asked" if error.status is None else f"it answered {error.status}"


def _working_token(services: Services, request: SetupRequest, url: str) -> str | None:
    """None where the server's own key may read the project, else the token that was handed over.

    Raises:
        RefusedError: neither may.
    """
    key = services.config.label_studio_api_key
    candidates = [key.get_secret_value()] if key is not None else []
    if request.access_token:
        candidates.append(request.access_token)
    refusals = []
    if services.config.label_studio_url is None:
        _check_host(url)
    for token in candidates:
        mark = (url, request.uid, token)
        if _checked.get(mark, 0.0) <= time.monotonic():
            number = int(request.uid.split(".")[0])
            try:
                client = LabelStudioClient(url, token, number, timeout_s=CHECK_SECONDS, retries=0)
                with closing(client):
                    info = client.read_project()
            except LabelStudioError as error:
                refusals.append(_told(services, error))
                continue
            _check_age(request.uid, info)
            _checked[mark] = time.monotonic() + TRUSTED_SECONDS
        return None if key is not None and token == candidates[0] else token
    why = f" ({refusals[-1]})" if refusals else ""
    raise RefusedError(
        f"The backend may not read this project at {url}{why}; set LABEL_STUDIO_URL and "
        "LABEL_STUDIO_API_KEY, the access token of a user who may change the project, for the "
        "backend."
    )
