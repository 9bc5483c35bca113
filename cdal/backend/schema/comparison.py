"""What selectors would ask for, as the API gives it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from cdal.backend.schema.view import View
from cdal.backend.settings import SelectorName


class SelectorView(View):
    """What a selector would ask for."""

    name: str
    ready: bool
    problem: str | None
    picks: list[int] = Field(description="Tasks by rank.")
    classes: int | None = Field(description="That the model sees in them.")
    entropy: float | None = Field(description="Bits, the mean over the images.")
    diversity: float | None = Field(description="Nats, the mean over the pairs of images.")


class ComparisonView(View):
    """What two selectors would ask for in the open round."""

    round: int
    budget: int
    selectors: list[SelectorView]
    common: int | None = Field(description="Images that both ask for.")


class ComparisonQuery(BaseModel):
    """Which selectors to compare."""

    model_config = ConfigDict(extra="forbid")

    a: SelectorName = Field("cdal-cs", description="One selector.")
    b: SelectorName = Field("entropy", description="Another.")
