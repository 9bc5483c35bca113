"""The worker's heartbeat in the store, by which other processes know that it is alive."""

from __future__ import annotations

import logging
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import delete
from sqlalchemy.orm import Session

from cdal.backend.store.database import Store
from cdal.backend.store.failures import STORAGE
from cdal.backend.store.tables import Heartbeat, now, seconds_since

log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0

LATE_SECONDS = 45.0
"""A worker without a heartbeat for this long is not alive; a busy one misses a beat or two."""


@contextmanager
def beating(store: Store) -> Iterator[None]:
    """Beat while the worker runs; a worker that ends by itself removes its heartbeat."""
    ended = threading.Event()
    started = now()

    def beat() -> None:
        while True:
            try:
                with store.transaction() as session:
                    session.merge(
                        Heartbeat(
                            id=1,
                            host=platform.node(),
                            pid=os.getpid(),
                            started_at=started,
                            seen_at=now(),
                        )
                    )
            except Exception as error:  # noqa: BLE001 — a full disk, a locked database: for now
                log.warning("The worker's heartbeat was left out: %s", type(error).__name__)
            if ended.wait(BEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        # If the database is away, the heartbeat will soon be late anyway.
        with suppress(*STORAGE), store.transaction() as session:
            session.execute(delete(Heartbeat))


def seconds_since_beat(session: Session) -> float | None:
    """Seconds since the last heartbeat; None if no worker runs."""
    found = session.get(Heartbeat, 1)
    return None if found is None else seconds_since(found.seen_at)
