"""How much of a list is asked for."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

LARGEST_ID = 2**31 - 1


class Limited(BaseModel):
    """How much of a list is asked for."""

    model_config = ConfigDict(extra="forbid")

    project: int | None = Field(None, ge=0, le=LARGEST_ID, description="Of this project only.")
    limit: int = Field(100, ge=1, le=1000, description="At most so many.")
    before: int | None = Field(
        None, ge=0, le=LARGEST_ID, description="Older than the one of this number."
    )


def _time(time: datetime | None) -> str | None:
    return None if time is None else f"{time.isoformat(timespec='milliseconds')}Z"


class View(BaseModel):
    """Something that is answered."""

    model_config = ConfigDict(extra="forbid")


class ErrorView(View):
    """Why it was not done."""

    error: str = Field(description="A sentence for people.")


class DoneView(View):
    """What happens now."""

    text: str = Field(description="A sentence for people.")
    job: int | None = Field(description="The job that does it, if one does.")
