"""The secret that identifies Label Studio's own webhook.

Label Studio creates a webhook when a backend is connected; it carries neither the password nor
anything else that others could not send. So a job puts a secret into its headers, one per project,
and from then on an event without it is refused. When the header is lost, as when the backend is
connected again, the first refused event or the minute's poll sets it again.
"""

from __future__ import annotations

import hmac
import secrets

from cdal.backend.store.tables import Project

HEADER = "X-CDAL-Webhook"
REFUSED = "an event without the webhook's secret"
"""Who requests a check that Label Studio's webhook still carries the secret: seldom."""


def make_secret() -> str:
    """A new secret, of 256 bits."""
    return secrets.token_urlsafe(32)


def may_hint(project: Project, given: str | None) -> bool:
    """Whether to act on an event with this header, or without one."""
    if project.webhook_secret is None or project.webhook_guarded_at is None:
        return True  # Label Studio does not have it yet
    return given is not None and hmac.compare_digest(
        given.encode("utf-8", "surrogateescape"), project.webhook_secret.encode()
    )
