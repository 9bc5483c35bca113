"""Projects whose Label Studio is now called by another address.

Anybody can call `/setup` in the name of a project that is known, and name another server. So a
project keeps its server, and the other server's is another project, unless it is certain that both
addresses are those of one Label Studio.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace

from cdal.backend.errors import LabelStudioError
from cdal.backend.label_studio.client import LabelStudioClient
from cdal.backend.label_studio.webhook import HEADER, make_secret
from cdal.backend.logs import never_show
from cdal.backend.services import Services
from cdal.backend.store.queries import namesakes
from cdal.backend.store.tables import Project

SEARCH_SECONDS = 2.0
"""After so long no other project is checked: Label Studio waits three seconds for `/setup`."""

OpenClient = Callable[[str, str], LabelStudioClient]
"""Opens a client for a project at an address, with a token."""


def find_moved(
    services: Services, uid: str, url: str, token: str, open_client: OpenClient
) -> int | None:
    """The project that is known by another address of the Label Studio at this one.

    Args:
        services: the backend's services.
        uid: "ID.createdAt" of the project in Label Studio.
        url: the address at which it is not known yet.
        token: a token that may read the project there.
        open_client: opens clients that answer within the time for `/setup`.

    Returns:
        The project's number in the store; None where there is none.
    """
    with services.store.reading() as session:
        known = namesakes(session, uid)
    # A project that the operator's own key serves is on the operator's server, wherever that is.
    if services.config.label_studio_url is not None:
        ours = [project for project in known if project.access_token is None]
        if ours:
            return ours[0].id
    until = time.monotonic() + SEARCH_SECONDS
    for project in known:
        with suppress(LabelStudioError):  # one of them does not answer, so it cannot agree
            if _is_same_server(services, project, url, token, open_client):
                return project.id
        if time.monotonic() > until:  # anybody can connect many projects of one uid
            break
    return None


def _is_same_server(
    services: Services, project: Project, url: str, token: str, open_client: OpenClient
) -> bool:
    """Whether a secret that the project's own server gets appears at the other address.

    Only the webhook's current secret makes its own server carry another one: a copy has the secret
    of the moment when it was made.
    """
    secret, held = project.webhook_secret, services.token(project)
    if secret is None or held is None:
        return False
    with closing(open_client(url, token)) as there, closing(open_client(project.url, held)) as own:
        if not _carrying(there, secret):
            return False
        webhooks = own.webhooks()
        fresh = make_secret(project.id)
        never_show(fresh)
        with services.store.transaction() as session:
            session.get_one(Project, project.id).webhook_secret = fresh
        for webhook in webhooks:
            if webhook.headers.get(HEADER) == secret:
                own.change_webhook(replace(webhook, headers={**webhook.headers, HEADER: fresh}))
        return _carrying(there, fresh)


def _carrying(client: LabelStudioClient, secret: str) -> bool:
    return any(webhook.headers.get(HEADER) == secret for webhook in client.webhooks())
