"""The web application: its parts, and its answers to errors."""

from __future__ import annotations

import logging
import sqlite3

import torch
from flask import Flask, Response, jsonify, request
from sqlalchemy.exc import DBAPIError
from werkzeug.exceptions import HTTPException

from cdal.backend.config import ServerConfig, server_config
from cdal.backend.errors import ActionError, ConfigError, RefusedError
from cdal.backend.logs import never_show, set_up_logging
from cdal.backend.loop.given_up import on_job_given_up
from cdal.backend.reports.health import Readiness
from cdal.backend.services import Services
from cdal.backend.store.failures import storage_problem
from cdal.backend.web.api import api
from cdal.backend.web.ml_backend import protocol
from cdal.backend.web.monitoring import add_metrics, operation
from cdal.backend.web.pages import site
from cdal.backend.web.places import limit_places
from cdal.backend.web.request import StrictJSON
from cdal.backend.web.security import guard
from cdal.text import one_line

log = logging.getLogger(__name__)


def create_app(config: ServerConfig | None = None) -> Flask:
    """The WSGI application, on the data folder of the configuration."""
    config = config or server_config()
    set_up_logging(config.log_level, config.log_format)
    never_show(*config.secrets())
    torch.set_num_threads(1)  # the worker does the heavy work; here it is single images
    app = Flask("cdal")
    app.json = StrictJSON(app)
    services = Services.open(config, on_job_given_up)
    app.extensions["cdal"] = services
    app.extensions["cdal-readiness"] = Readiness(services)
    limit_places(app, config.threads)
    guard(app, config)
    _answer_errors(app)
    add_metrics(app, services)
    app.register_blueprint(protocol)
    app.register_blueprint(api)
    app.register_blueprint(site)
    app.register_blueprint(operation)
    return app


def _answer_errors(app: Flask) -> None:
    # A configuration that an earlier version of the backend stored may be refused by this one.
    @app.errorhandler(ConfigError)
    @app.errorhandler(RefusedError)
    def refuse(error: RefusedError | ConfigError) -> Response:
        answer = jsonify(error=str(error))
        # Label Studio shows the status line and ignores the body.
        answer.status = f"400 {status_text(str(error))}"
        return answer

    @app.errorhandler(ActionError)
    def impossible(error: ActionError) -> tuple[Response, int]:
        return jsonify(error=str(error)), error.status

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error=error.description or error.name), error.code or 500

    def no_storage(error: Exception) -> tuple[Response, int]:
        problem = storage_problem(error)
        log.error("%s %s failed. %s", request.method, request.path, problem)
        return jsonify(error=problem), 503

    for kind in (DBAPIError, sqlite3.Error):
        app.register_error_handler(kind, no_storage)

    @app.errorhandler(Exception)
    def broken(error: Exception) -> tuple[Response, int]:
        log.exception("%s %s failed", request.method, request.path, exc_info=error)
        return jsonify(error="Internal error; see the backend's log for details."), 500


def status_text(message: str) -> str:
    """A message as the reason phrase of an HTTP status line: one short line in Latin-1."""
    return one_line(message, 1000).encode("latin-1", "replace").decode("latin-1")
