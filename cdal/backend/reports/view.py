"""What all reports share: the base of their models, times, errors, and queries of lists."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

LARGEST_ID = 2**31 - 1


def timestamp(time: datetime) -> str:
    """A time in UTC as ISO 8601 with milliseconds, such as "2026-01-31T09:30:00.000Z"."""
    return f"{time.isoformat(timespec='milliseconds')}Z"


Time = Annotated[
    datetime,
    PlainSerializer(timestamp, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class View(BaseModel):
    """A report, or a part of one.

    A field whose name is a keyword of Python ends in an underscore, which JSON does not show.
    """

    model_config = ConfigDict(
        extra="forbid",
        alias_generator=lambda name: name.rstrip("_"),
        validate_by_name=True,
        serialize_by_alias=True,
    )


class ErrorView(View):
    """Why a request failed."""

    error: str = Field(description="A sentence for people.")


class Limited(BaseModel):
    """How much of a list is requested."""

    model_config = ConfigDict(extra="forbid")

    project: int | None = Field(None, ge=0, le=LARGEST_ID, description="Of this project only.")
    limit: int = Field(100, ge=1, le=1000, description="The most entries to return.")
    before: int | None = Field(
        None, ge=0, le=LARGEST_ID, description="Only entries older than the one with this number."
    )
