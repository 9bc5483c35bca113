"""The kinds of job: what each is called, and which of them may run at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

JobKind = Literal[
    "sync",
    "train",
    "score",
    "select",
    "queue",
    "comparison",
    "pool_map",
    "savings",
    "export",
    "full_training",
    "recheck",
    "prune",
]

Lane = Literal["queue", "train", "score", "look", "background", "upkeep"]
"""Jobs of the same lane never run at the same time for one project.

Sync and queue both write the project's queue. A training must hold up neither them nor the scoring
of a new round. What people only look at holds up nothing, nor does what gives way to all others.
"""

SHARED_LANES: frozenset[Lane] = frozenset({"train", "score", "look", "background", "upkeep"})
"""Of these lanes, a worker runs one job at a time; but a scoring or selection that takes long lets
those of other projects run beside it, see `jobs/manager.py`.

Two trainings would only slow each other down, and a thread must always be free for the lane in
which labels are noticed and queues are filled.
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job.

    Attributes:
        lane: see `Lane`.
        name: of the work, as in "training, 43%" or "Cancel the training".
        is_step: whether it is a step from one round to the next.
        is_frequent: whether it is requested so often that of the successful ones only the last is
            kept on record.
        asks_label_studio: whether it always calls Label Studio's API.
    """

    lane: Lane
    name: str
    is_step: bool = False
    is_frequent: bool = False
    asks_label_studio: bool = False

    @property
    def is_long(self) -> bool:
        """Whether the pages offer to cancel it."""
        return self.lane != "look" and not self.is_frequent


KINDS: Mapping[str, Kind] = {
    "train": Kind("train", "training", is_step=True, asks_label_studio=True),
    "score": Kind("score", "scoring", is_step=True),
    "select": Kind("score", "selecting", is_step=True, asks_label_studio=True),
    "queue": Kind("queue", "queueing", is_step=True, asks_label_studio=True),
    "sync": Kind("queue", "reading", is_frequent=True, asks_label_studio=True),
    "comparison": Kind("look", "comparison"),
    "pool_map": Kind("look", "pool map"),
    "savings": Kind("train", "savings estimate"),
    "export": Kind("look", "export"),
    "full_training": Kind("background", "full training", asks_label_studio=True),
    "recheck": Kind("upkeep", "check of the images", is_frequent=True),
    "prune": Kind("upkeep", "pruning", asks_label_studio=True),
}
"""Every kind of job. The steps come first, and of these the one that takes longest."""

STEPS = tuple(kind for kind, known in KINDS.items() if known.is_step)
"""The kinds of job that take a project from one round to the next."""
