"""Events: what happened that an admin may want to read about."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.reports.view import Limited, Time, View
from cdal.backend.store.tables import Event

Level = Literal["info", "warning", "error"]


class EventView(View):
    """Something that an admin may want to read about."""

    id: int
    project: int | None
    level: Level
    text: str
    created_at: Time


class EventsView(View):
    events: list[EventView] = Field(description="The newest first.")


class EventsQuery(Limited):
    level: Level | None = Field(None, description="Of this level only.")


def events_view(
    session: Session,
    project: int | None = None,
    level: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> EventsView:
    """Events, the newest first; see `EventsQuery` for the filters."""
    query = select(Event).order_by(Event.id.desc()).limit(limit)
    wanted = {"project_id": project, "level": level}
    query = query.filter_by(**{name: value for name, value in wanted.items() if value is not None})
    if before is not None:
        query = query.where(Event.id < before)
    return EventsView(
        events=[
            EventView(
                id=event.id,
                project=event.project_id,
                level=event.level,
                text=event.text,
                created_at=event.created_at,
            )
            for event in session.scalars(query)
        ]
    )
