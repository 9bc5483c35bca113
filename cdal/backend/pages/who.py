"""Who asks for something on a page: it is written beside what was done."""

from __future__ import annotations

from flask import g, request


def asked_by() -> str:
    """The name that somebody gave with their password, else where they are."""
    given = request.authorization
    if g.get("has_password") and given is not None and given.username:
        return str(given.username)
    return f"somebody at {request.remote_addr or 'an unknown address'}"
