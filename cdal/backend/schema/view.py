"""What every answer of the API is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


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
