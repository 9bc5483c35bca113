"""What a process remembers of Label Studio between jobs, so that the next one need not ask again.

It is in memory only: after a restart everything is read again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

Submitted = list[dict[str, Any]]
"""The annotations of one task, without drafts."""

MOST_CHARACTERS = 8 * 2**20
"""Of a project's annotations as JSON: about ten thousand choices. Brush strokes are longer."""

MOST_PROJECTS = 8
"""Projects whose annotations are remembered; those that trained last."""


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
        tasks: how many it had when the store was last found to have as many.
        queue_versions: names of queue versions that Label Studio knows.
        unnamed: numbers of people whose names it does not tell, so as not to ask after each label.
        annotations: what was submitted.
    """

    changes_read: float | None = None
    tasks: int | None = None
    queue_versions: set[str] | None = None
    unnamed: set[int] = field(default_factory=set)
    annotations: Annotations | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered, by the address of a Label Studio and the project's number in it."""

    _projects: dict[tuple[str, int], Remembered] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, url: str, project: int) -> Remembered:
        with self._lock:
            return self._projects.setdefault((url, project), Remembered())

    def keep(self, url: str, project: int, annotations: Annotations) -> None:
        """Remember a project's annotations, unless they are too long."""
        kept = annotations if _is_short(annotations.by_task) else None
        with self._lock:
            remembered = self._projects.pop((url, project), Remembered())
            self._projects[url, project] = remembered  # the last
            remembered.annotations = kept
            keeping = [one for one in self._projects.values() if one.annotations is not None]
            for one in keeping[:-MOST_PROJECTS]:
                one.annotations = None


def _is_short(annotations: Mapping[int, Submitted]) -> bool:
    length = 0
    for submitted in annotations.values():
        try:
            length += len(json.dumps(submitted, default=str))
        except RecursionError:  # nested more deeply than any region is
            return False
        if length > MOST_CHARACTERS:
            return False
    return True
