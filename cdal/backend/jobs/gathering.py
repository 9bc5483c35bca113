"""While people label, several labels share one look at Label Studio.

A look is a few requests, which cost Label Studio as much of its processor as several labels do.
What it looks for depends on who asked for it; one that several share looks for what each of them
needs.
"""

from __future__ import annotations

from collections import defaultdict, deque
from datetime import datetime
from threading import Lock

from cdal.backend.label_studio.webhook import REFUSED
from cdal.backend.store.tables import Project, now

POLL = "the minute's poll"
"""Who asks for a look once per minute, at everything, in case an event was lost."""

LABELLED = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED"})
"""Events with which nothing was deleted. While people label, they come all the time; to count a
large project's tasks after each would be half of what the look costs Label Studio."""

GATHER_S = 3.0
"""The least seconds between two looks at a project, unless something is due before."""

FAR = 50
"""Labels that need not be counted: more do not come within that time."""


class Gathering:
    """The events about labels that Label Studio has sent to this process. Thread-safe.

    With several web processes, each counts its own: what is due is then noticed later, by
    `GATHER_S` at most.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._events: defaultdict[int, deque[datetime]] = defaultdict(lambda: deque(maxlen=FAR))

    def wait_s(self, project: Project) -> float:
        """Note an event about a project's labels.

        Returns:
            Seconds for which the look at them can wait; 0 if something may be due with it.
        """
        at = now()
        with self._lock:
            events = self._events[project.id]
            events.append(at)
            if project.looked_at is None:
                return 0.0
            unseen = sum(event > project.looked_at for event in events)
        if project.labels_missing is not None and unseen >= project.labels_missing:
            return 0.0
        passed = (at - project.looked_at).total_seconds()
        return min(GATHER_S, max(0.0, GATHER_S - passed))


def sees_more(asked_by: str, than: str) -> bool:
    """Whether a look that somebody asks for sees what one that somebody else asked for does not."""
    return _depth(asked_by) > _depth(than)


def _depth(asked_by: str) -> int:
    if asked_by == POLL:
        return 2
    # Anybody can send an event that is refused, and must not make the looks of others dearer.
    return 0 if asked_by in LABELLED or asked_by == REFUSED else 1
