"""While people label, several labels share one look at Label Studio.

A look is a few requests, which cost Label Studio as much of its processor as several labels do.
"""

from __future__ import annotations

from collections import defaultdict, deque
from datetime import datetime
from threading import Lock

from cdal.backend.store.tables import Project, now

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
