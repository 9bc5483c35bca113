"""What endpoints share: the services, the JSON of a request, and who sent it."""

from __future__ import annotations

import json
from typing import Any, cast

from flask import current_app, g, request
from flask.json.provider import DefaultJSONProvider

from cdal.backend.errors import RefusedError
from cdal.backend.services import Services
from cdal.backend.text import requester

ID = "int(max=2147483647)"
"""Path converter for a number that fits every database."""


class StrictJSON(DefaultJSONProvider):
    """JSON as the standard defines it: whatever is read can be written again."""

    @staticmethod
    def loads(s: str | bytes, **options: Any) -> Any:
        """Read JSON.

        Raises:
            ValueError: it is not JSON, is nested too deeply, or has an unpaired surrogate.
        """
        try:
            # The standard's JSON is in UTF-8; Python's reader would take others, too.
            text = s.decode() if isinstance(s, bytes) else s
            value = json.loads(text, parse_constant=_refuse, **options)
            if "\\ud" in text or "\\uD" in text:
                json.dumps(value, ensure_ascii=False).encode()
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def services() -> Services:
    """The services of this process."""
    return cast(Services, current_app.extensions["cdal"])


def json_body() -> dict[str, Any]:
    """The request's body.

    Raises:
        RefusedError: it is not a JSON object.
    """
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # thousands of nested brackets
        body = None
    if not isinstance(body, dict):
        raise RefusedError("The request's body must be a JSON object.")
    return body


def asked_by() -> str:
    """The user name given with the password, or else the address of the request."""
    given = request.authorization
    if g.get("has_password") and given is not None and given.username:
        return requester(given.username)
    return f"somebody at {request.remote_addr or 'an unknown address'}"
