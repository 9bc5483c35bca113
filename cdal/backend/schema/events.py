"""Events, as the API gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from cdal.backend.schema.lists import Limited
from cdal.backend.schema.view import View

Level = Literal["info", "warning", "error"]


class EventView(View):
    """Something that an admin may want to read about."""

    id: int
    project: int | None
    level: Level
    text: str
    created_at: datetime


class EventsView(View):
    events: list[EventView] = Field(description="The newest first.")


class EventsQuery(Limited):
    level: Level | None = Field(None, description="Of this level only.")
