"""The secret by which Label Studio's own webhook is known.

Label Studio creates a webhook for a backend that is connected; it carries neither the password nor
anything else that others could not send. So a job puts a secret in its headers, one a project, and
from then on an event without it is refused. Where the header is lost, as when the backend is
connected anew, the first event that is refused, or the minute's poll, has it set again.
"""

from __future__ import annotations

import hmac
import secrets

from cdal.backend.store.tables import Project

HEADER = "X-CDAL-Webhook"
REFUSED = "an event without the webhook's secret"
"""Who asks for a look whether Label Studio's webhook still bears it: seldom, whoever sent it."""


def make_secret() -> str:
    """A new secret, of 256 bits."""
    return secrets.token_urlsafe(32)


def may_hint(project: Project, given: str | None) -> bool:
    """Whether an event that carries this, or nothing, in its header is to be heard."""
    if project.webhook_secret is None or project.webhook_guarded_at is None:
        return True  # Label Studio has not been given it yet
    return given is not None and hmac.compare_digest(
        given.encode("utf-8", "surrogateescape"), project.webhook_secret.encode()
    )
