"""The secret that identifies Label Studio's own webhook, and the project it is of.

Label Studio creates a webhook when a backend is connected; it carries neither the password nor
anything else that others could not send. So a job puts a secret into its headers, one per project,
and from then on an event without it is refused. When the header is lost, as when the backend is
connected again, the first refused event or the minute's poll sets it again.

The job also has Label Studio leave out the event's content, which nobody here believes: the whole
project is part of it, and to describe it Label Studio counts all its tasks and annotations anew
while the annotator waits, for every label. The secret then tells which project the event is of.
"""

from __future__ import annotations

import hmac
import re
import secrets

from sqlalchemy.orm import Session

from cdal.backend.store.tables import Project

HEADER = "X-CDAL-Webhook"
NUMBERED = re.compile(r"([1-9][0-9]{0,17})\.")
REFUSED = "an event without the webhook's secret"
"""Who requests a check that Label Studio's webhook still carries the secret: seldom."""


def make_secret(project: int) -> str:
    """A new secret, of 256 bits, that begins with the project's number in the store."""
    return f"{project}.{secrets.token_urlsafe(32)}"


def names_its_project(project: Project) -> bool:
    """Whether the project's secret begins with its number; those of earlier versions do not."""
    return _number(project.webhook_secret) == project.id


def claimed_project(session: Session, given: str | None) -> Project | None:
    """The project that an event with this header claims to be of: see ``may_hint``."""
    number = _number(given)
    return None if number is None else session.get(Project, number)


def _number(secret: str | None) -> int | None:
    found = NUMBERED.match(secret or "")
    return int(found[1]) if found else None


def may_hint(project: Project, given: str | None) -> bool:
    """Whether to act on an event with this header, or without one."""
    if project.webhook_secret is None or project.webhook_guarded_at is None:
        return True  # Label Studio does not have it yet
    return given is not None and hmac.compare_digest(
        given.encode("utf-8", "surrogateescape"), project.webhook_secret.encode()
    )
