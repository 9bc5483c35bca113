"""How much of a list is asked for."""

from __future__ import annotations

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
