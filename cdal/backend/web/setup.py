"""Connecting a project: a call of `/setup` is checked and remembered."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address
from threading import Lock
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from cdal.backend.addresses import is_servers, resolve, server_address
from cdal.backend.errors import ConfigError, LabelStudioError, RefusedError
from cdal.backend.label_studio.client import LabelStudioClient
from cdal.backend.label_studio.data import ProjectInfo, unix_second
from cdal.backend.logs import never_show
from cdal.backend.loop.connection import SET_UP
from cdal.backend.project_config import ProjectConfig
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.queries import find, namesakes
from cdal.backend.store.tables import Project
from cdal.backend.text import is_token
from cdal.backend.web.moved import find_moved
from cdal.text import one_line

CHECK_SECONDS = 1.2
"""For each of two tokens; Label Studio waits 3 seconds for the answer to `/setup`."""

CHECK_BYTES = 16 << 20
"""Of an answer: a project with its labeling config, or its webhooks."""

TRUSTED_SECONDS = 600.0
"""A token that worked is not tried again for so long: `/setup` is called several times a minute."""

MOST_TRUSTED = 1000

# Only one spelling: any other would be a second project here for the same one in Label Studio.
_UID = re.compile(r"[1-9][0-9]{0,8}\.[1-9][0-9]{0,19}")


def is_uid(value: object) -> TypeGuard[str]:
    """Whether a value is a project's name as Label Studio sends it, "ID.createdAt"."""
    return isinstance(value, str) and _UID.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class SetupRequest:
    """What Label Studio sends to `/setup`."""

    uid: str
    labeling_config: str
    hostname: str
    access_token: str
    extra_params: Any
    host: str = ""
    caller: str = ""

    @classmethod
    def of(cls, body: Mapping[str, Any], host: str = "", caller: str = "") -> SetupRequest:
        """Read the body of a call, which may be anything.

        Args:
            body: the body.
            host: what the caller calls the backend.
            caller: the address that the caller calls from.

        Raises:
            RefusedError: a field is missing or is not text.
        """
        uid = body.get("project")
        if not is_uid(uid):
            raise RefusedError(
                'The field "project" must be Label Studio\'s, such as "12.1700000000".'
            )
        texts = {}
        for name in ("schema", "hostname", "access_token"):
            value = body.get(name) or ""
            if not isinstance(value, str) or "\0" in value:
                raise RefusedError(f'The field "{name}" must be text.')
            texts[name] = value.strip() if name != "schema" else value
        token = texts["access_token"]
        if token and not is_token(token):
            raise RefusedError('The field "access_token" contains characters that no token has.')
        return cls(
            uid,
            texts["schema"],
            texts["hostname"],
            token,
            body.get("extra_params"),
            host[:200],
            caller[:64],
        )


_trusted: dict[tuple[str, str, str], float] = {}  # until when; the newest last
_trusted_lock = Lock()


def _is_trusted(mark: tuple[str, str, str]) -> bool:
    return _trusted.get(mark, 0.0) > time.monotonic()


def _trust(mark: tuple[str, str, str]) -> None:
    with _trusted_lock:
        _trusted.pop(mark, None)
        _trusted[mark] = time.monotonic() + TRUSTED_SECONDS
        while len(_trusted) > MOST_TRUSTED:
            del _trusted[next(iter(_trusted))]


def connect(services: Services, request: SetupRequest) -> Project:
    """Check that a project can be served, and remember it.

    Raises:
        RefusedError: it cannot be served; the message says why and what to do.
    """
    try:
        ProjectConfig.accept(request.labeling_config, request.extra_params, services.config)
    except ConfigError as error:
        raise RefusedError(str(error)) from None
    url = _address(services, request.hostname)
    token = _working_token(services, request, url)
    never_show(token)
    public = _public_address(services, request.hostname, url)
    with services.store.reading() as session:
        known = find(session, url, request.uid)
    moved = None if known is not None else _find_moved(services, request, url, token)
    is_same = known is not None and (
        known.access_token == token
        and known.labeling_config == request.labeling_config
        and known.extra_params == request.extra_params
    )
    origin = (public, request.host or None, request.caller or None)
    if known is not None and is_same and origin == _origin(known):
        if known.connected_at is None:  # at its first call, it did not list the backend yet
            services.jobs.ask(known.id, "sync", SET_UP, services.looks)
        return known
    with services.store.transaction() as session:
        project = find(session, url, request.uid)
        if project is None and moved is not None:
            project = session.get_one(Project, moved)
            note(session, moved, f"Label Studio has moved from {project.url} to {url}", "warning")
            project.url = url
        if project is None:
            project = _new_project(session, request, url)
        project.access_token = token
        project.labeling_config = request.labeling_config
        project.extra_params = request.extra_params
        project.public_url, project.backend_host, project.caller = origin
        if not is_same:
            services.jobs.request(session, project.id, "sync", SET_UP)
    services.jobs.send_pending(project.id)
    return project


def _origin(project: Project) -> tuple[str | None, str | None, str | None]:
    return project.public_url, project.backend_host, project.caller


def _new_project(session: Session, request: SetupRequest, url: str) -> Project:
    others = namesakes(session, request.uid)
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
    for other in others:
        text = (
            f"A Label Studio at {url} has connected a project of the same number and age, which is "
            "kept apart as another project"
        )
        note(session, other.id, text, "warning")
    return project


def _find_moved(
    services: Services, request: SetupRequest, url: str, token: str | None
) -> int | None:
    key = services.config.label_studio_api_key
    held = token or (key.get_secret_value() if key is not None else "")

    def open_client(address: str, its_token: str) -> LabelStudioClient:
        return _client(request.uid, address, its_token)

    return find_moved(services, request.uid, url, held, open_client)


def _address(services: Services, hostname: str) -> str:
    # A caller does not overrule an address that the operator set.
    given = services.config.label_studio_url or hostname
    if "@" in given.partition("://")[2].partition("/")[0]:
        raise RefusedError(
            "Label Studio's address contains a user name or password; remove them from "
            "LABEL_STUDIO_URL and set LABEL_STUDIO_API_KEY."
        )
    url = server_address(given)
    if url is None:
        raise RefusedError(
            f'"{one_line(given)}" is not an address of Label Studio; set LABEL_STUDIO_URL for the '
            "backend."
        )
    return url


def _public_address(services: Services, hostname: str, url: str) -> str | None:
    """The address that Label Studio writes into its tasks, if it is not the one in use."""
    public = server_address(hostname) if services.config.label_studio_url is not None else None
    return None if public == url else public


def _check_host(url: str) -> None:
    """Refuse addresses where no Label Studio runs, but where a cloud or router keeps secrets."""
    parts = urlsplit(url)
    try:
        found = resolve(parts.hostname or "", parts.port or 80)
        addresses = [ip_address(address) for address in found]
    except (OSError, ValueError):
        return  # connecting to it will fail, too
    if any(not is_servers(address) for address in addresses):
        raise RefusedError(
            f'"{url}" has an address at which Label Studio cannot run; set LABEL_STUDIO_URL for '
            "the backend."
        )


def _check_age(uid: str, info: ProjectInfo) -> None:
    """Refuse a project whose time of creation is not the one in its name."""
    _, _, created = uid.partition(".")
    if info.created_at is not None and int(created) != unix_second(info.created_at):
        raise RefusedError(
            f"Project {uid.partition('.')[0]} of Label Studio was not created at the time that the "
            'field "project" says.'
        )


def _detail(services: Services, error: LabelStudioError) -> str:
    """The error; without the server's words if any caller could have named that server."""
    if services.config.label_studio_url is not None:
        return str(error)
    return "it did not answer" if error.status is None else f"it answered {error.status}"


def _client(uid: str, url: str, token: str) -> LabelStudioClient:
    number = int(uid.split(".")[0])
    return LabelStudioClient(
        url,
        token,
        number,
        timeout_s=CHECK_SECONDS,
        retries=0,
        whole_s=CHECK_SECONDS,
        most_bytes=CHECK_BYTES,
    )


def _working_token(services: Services, request: SetupRequest, url: str) -> str | None:
    """None if the server's own key may read the project, otherwise the token that was sent.

    Raises:
        RefusedError: neither may read it.
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
        if not _is_trusted(mark):
            try:
                with closing(_client(request.uid, url, token)) as client:
                    info = client.read_project()
            except LabelStudioError as error:
                refusals.append(_detail(services, error))
                continue
            _check_age(request.uid, info)
            _trust(mark)
        return None if key is not None and token == candidates[0] else token
    why = f" ({refusals[-1]})" if refusals else ""
    raise RefusedError(
        f"The backend cannot read this project at {url}{why}; set LABEL_STUDIO_URL and "
        "LABEL_STUDIO_API_KEY, the access token of a user who may change the project, for the "
        "backend."
    )
