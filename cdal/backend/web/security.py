"""Security: who may send requests, and the headers of every answer.

The pages load nothing from other sites and contain no inline script or style, so text from others
cannot become either.
"""

from __future__ import annotations

import hmac
import re
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

from flask import Flask, Response, g, jsonify, request
from sqlalchemy import select

from cdal.backend.config import ServerConfig
from cdal.backend.logs import set_log_context
from cdal.backend.store.tables import Project
from cdal.backend.web.hosts import is_known, name_of
from cdal.backend.web.request import services
from cdal.text import one_line

MAX_BODY_BYTES: Mapping[str, int] = {
    "/predict": 128 * 2**20,  # "Retrieve predictions" sends thousands of tasks per call
    "/webhook": 32 * 2**20,  # an event contains the annotation, including brush strokes
    "/setup": 4 * 2**20,
    "/validate": 4 * 2**20,
}
MAX_OTHER_BODY_BYTES = 2**20
BIG_BODY_BYTES = 8 * 2**20
"""Larger bodies, and those of unknown size, are read one at a time: parsed, they take many times
their size."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# A slow sender without the password must not hold up those who have it, nor a prediction an event.
_big_body = {
    (has_password, is_event): threading.Semaphore(1)
    for has_password in (True, False)
    for is_event in (True, False)
}


def guard(app: Flask, config: ServerConfig) -> None:
    """Check every request, and add the headers to every answer."""

    @app.before_request
    def check() -> Response | None:
        set_log_context(project=_project_of(request.path))
        rule = request.url_rule.rule if request.url_rule is not None else ""
        request.max_content_length = MAX_BODY_BYTES.get(rule, MAX_OTHER_BODY_BYTES)
        if request.method not in _SAFE_METHODS and _is_from_another_site():
            return _refusal(
                "403 Forbidden",
                "This request was sent by another site's page, which is not allowed. If there is "
                "a proxy, it must pass the Host header on.",
            )
        if not is_known(request.host, config, _connected_by) and not _is_first_call():
            return _refusal(
                "403 Forbidden",
                f"The backend may not be called by the name {one_line(name_of(request.host))}; an "
                "administrator can allow it in CDAL_ALLOWED_HOSTS.",
            )
        return _admit(config)

    @app.teardown_request
    def release(_error: BaseException | None) -> None:
        turn = g.pop("turn", None)
        if turn is not None:
            turn.release()

    @app.after_request
    def add_headers(answer: Response) -> Response:
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        if request.endpoint != "static":
            answer.headers.setdefault("Cache-Control", "no-store")
        return answer


def _is_first_call() -> bool:
    """Whether Label Studio may be connecting a project, by a name that is not known yet.

    Browsers name the page that a POST comes from, and `/health` says nothing.
    """
    if request.path == "/health":
        return True
    is_browser = "Origin" in request.headers or "Sec-Fetch-Site" in request.headers
    return request.method == "POST" and request.path == "/setup" and not is_browser


def _connected_by() -> list[str]:
    """The hosts by which Label Studio calls the backend."""
    query = select(Project.backend_host).where(Project.backend_host.is_not(None)).distinct()
    with services().store.reading() as session:
        return [host for host in session.scalars(query) if host is not None]


def _admit(config: ServerConfig) -> Response | None:
    """Require the password where it is needed; a large body waits until it may be read."""
    g.has_password = _has_password(config)
    stranger = not g.has_password and _needs_password(config)
    # Label Studio's webhook carries a secret instead, which its endpoint checks.
    if stranger and request.path != "/webhook":
        return _ask_for_password()
    if _may_be_big():
        turn = _big_body[g.has_password, request.path == "/webhook"]
        turn.acquire()
        g.turn = turn
    return _ask_for_password() if stranger and _starts_training() else None


def _project_of(path: str) -> int | None:
    """The project in a path of the API."""
    found = re.match(r"/api/v1/projects/([0-9]{1,10})(/|$)", path)
    return int(found[1]) if found else None


def _has_password(config: ServerConfig) -> bool:
    """Whether the request carries the right user name and password."""
    user, password = config.basic_auth_user, config.basic_auth_pass
    given = request.authorization
    if user is None or password is None or given is None or given.type != "basic":
        return False
    same_user = hmac.compare_digest(_bytes(given.username), _bytes(user))
    same_pass = hmac.compare_digest(_bytes(given.password), _bytes(password.get_secret_value()))
    return same_user and same_pass


def _needs_password(config: ServerConfig) -> bool:
    return config.basic_auth_user is not None and request.path != "/health"


def _ask_for_password() -> Response:
    answer = _refusal("401 Unauthorized", "User name and password are required.")
    answer.headers["WWW-Authenticate"] = 'Basic realm="CDAL"'
    return answer


def _may_be_big() -> bool:
    if "Transfer-Encoding" in request.headers:  # chunked: the size is unknown
        return True
    return (request.content_length or 0) > BIG_BODY_BYTES


def _starts_training() -> bool:
    body = request.get_json(silent=True)
    return not isinstance(body, dict) or body.get("action") == "START_TRAINING"


def _is_from_another_site() -> bool:
    """Whether a browser marks this as sent by another site's page; other clients send no mark."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("Origin")
    try:
        return origin is not None and urlsplit(origin).netloc != request.host
    except ValueError:
        return True


def _refusal(status: str, sentence: str) -> Response:
    answer = jsonify(error=sentence)
    answer.status = status
    return answer


def _bytes(text: str | None) -> bytes:
    return (text or "").encode("utf-8", "surrogateescape")
