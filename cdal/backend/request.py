"""What every endpoint needs of the request that it answers."""

from __future__ import annotations

from typing import Any, cast

from flask import current_app, request

from cdal.backend.connection import RefusedError
from cdal.backend.services import Services


def services() -> Services:
    """What this process shares."""
    return cast(Services, current_app.extensions["cdal"])


def json_body() -> dict[str, Any]:
    """The request's body.

    Raises:
        RefusedError: it is not a JSON object.
    """
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # brackets within brackets, thousands deep
        body = None
    if not isinstance(body, dict):
        raise RefusedError("The request's body must be a JSON object.")
    return body
