"""What a process remembers of Label Studio between jobs, so that the next one need not ask again.

It is in memory only: after a restart everything is read again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Submitted = list[dict[str, Any]]
"""The annotations of one task, without drafts."""

MOST_TASKS = 20_000
"""Labelled tasks of a project whose annotations are remembered: a few kilobytes each."""


@dataclass(slots=True)
class Annotations:
    """The annotations of a project's labelled tasks.

    Attributes:
        by_task: by task id.
        seen: the newest change that was known when they were read, as Label Studio gave it.
        whole: when all of them were last read, by ``time.monotonic``.
    """

    by_task: dict[int, Submitted]
    seen: str
    whole: float


@dataclass(slots=True)
class Remembered:
    """What is remembered of one project.

    Attributes:
        changes_read: when its changes were last read, by ``time.monotonic``.
        queue_versions: names of queue versions that Label Studio knows.
        annotations: what was submitted.
    """

    changes_read: float | None = None
    queue_versions: set[str] | None = None
    annotations: Annotations | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered, by the address of a Label Studio and the project's number in it."""

    _projects: dict[tuple[str, int], Remembered] = field(default_factory=dict)

    def of(self, url: str, project: int) -> Remembered:
        return self._projects.setdefault((url, project), Remembered())
