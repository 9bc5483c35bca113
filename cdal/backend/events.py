"""Events: what an admin may want to read about, newest first."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.tables import Event, Project

NEWEST = 40


def events_status(session: Session, project: Project, most: int = NEWEST) -> list[dict[str, Any]]:
    """A project's newest events as JSON data."""
    query = select(Event).filter_by(project_id=project.id).order_by(Event.id.desc()).limit(most)
    return [
        {
            "id": event.id,
            "level": event.level,
            "text": event.text,
            "at": event.created_at.isoformat(),
        }
        for event in session.scalars(query)
    ]
