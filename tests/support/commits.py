"""What is committed to a backend's database, noticed from outside."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

LONGEST_S = 1.0
"""What a test waits for may be in no database."""


@contextmanager
def commits(data_folder: Path) -> Iterator[Callable[[], None]]:
    """A function that waits until something has been committed since it last returned.

    It returns after ``LONGEST_S`` in any case, and at once if the database is on a server. To look
    costs microseconds, while each request of a project's status costs ten milliseconds of
    processor time, which the backend's work would have to wait for.
    """
    file = data_folder / "cdal.sqlite"
    if not file.exists():
        yield lambda: None
        return
    with closing(sqlite3.connect(file, timeout=60.0)) as store:

        def version() -> int:
            number: int = store.execute("PRAGMA data_version").fetchone()[0]
            return number

        seen = version()

        def wait() -> None:
            nonlocal seen
            deadline = time.monotonic() + LONGEST_S
            while (newest := version()) == seen and time.monotonic() < deadline:
                time.sleep(0.05)
            seen = newest

        yield wait
