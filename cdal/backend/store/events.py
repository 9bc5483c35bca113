"""Events: what an admin may want to read about, recorded and logged."""

from __future__ import annotations

import logging

from sqlalchemy.orm import Session

from cdal.backend.store.tables import Event

log = logging.getLogger(__name__)


def note(session: Session, project_id: int | None, text: str, level: str = "info") -> None:
    """Record an event and log it."""
    session.add(Event(project_id=project_id, level=level, text=text))
    where = f"project {project_id}: " if project_id is not None else ""
    extra = {"project": project_id} if project_id is not None else {}
    log.log(logging.getLevelNamesMapping()[level.upper()], "%s%s", where, text, extra=extra)
