"""The web application: who may ask, what is answered when something goes wrong."""

from __future__ import annotations

import hmac
import logging

import torch
from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from cdal.backend.api import api
from cdal.backend.config import ServerConfig, server_config
from cdal.backend.connection import RefusedError
from cdal.backend.logs import set_up_logging
from cdal.backend.metrics import add_metrics
from cdal.backend.pages import site
from cdal.backend.protocol import protocol
from cdal.backend.services import Services

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 128 * 2**20  # «Retrieve predictions» sends thousands of tasks in one call


def create_app(config: ServerConfig | None = None) -> Flask:
    """The WSGI application, on the data folder that the configuration names."""
    config = config or server_config()
    set_up_logging(config.log_level)
    torch.set_num_threads(1)  # the worker computes; an unseen image is a small thing
    app = Flask("cdal")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    services = Services.open(config)
    app.extensions["cdal"] = services
    _require_password(app, config)
    _answer_errors(app)
    add_metrics(app, services)
    app.register_blueprint(protocol)
    app.register_blueprint(api)
    app.register_blueprint(site)
    return app


def _require_password(app: Flask, config: ServerConfig) -> None:
    user, password = config.basic_auth_user, config.basic_auth_pass
    if user is None or password is None:
        return

    @app.before_request
    def check() -> Response | None:
        # Label Studio's own webhook carries no password; as a hint to look, it needs none.
        if request.path == "/health" or _is_hint():
            return None
        given = request.authorization
        if given is not None and given.type == "basic":
            same_user = hmac.compare_digest((given.username or "").encode(), user.encode())
            same_pass = hmac.compare_digest(
                (given.password or "").encode(), password.get_secret_value().encode()
            )
            if same_user and same_pass:
                return None
        answer = jsonify(error="User name and password are required.")
        answer.status = "401 Unauthorized"
        answer.headers["WWW-Authenticate"] = 'Basic realm="CDAL"'
        return answer


def _is_hint() -> bool:
    if request.path != "/webhook":
        return False
    body = request.get_json(silent=True)
    return isinstance(body, dict) and body.get("action") != "START_TRAINING"


def _answer_errors(app: Flask) -> None:
    @app.errorhandler(RefusedError)
    def refuse(error: RefusedError) -> Response:
        answer = jsonify(error=str(error))
        # Label Studio shows the status line and never reads the body.
        answer.status = f"400 {status_text(str(error))}"
        return answer

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error=error.description or error.name), error.code or 500

    @app.errorhandler(Exception)
    def broken(error: Exception) -> tuple[Response, int]:
        log.exception("%s %s broke", request.method, request.path, exc_info=error)
        return jsonify(error="Internal error; the backend's log says more."), 500


def status_text(message: str) -> str:
    """A message as the reason of an HTTP status line: one line, Latin-1, not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    return line.encode("latin-1", "replace").decode("latin-1")[:500]
