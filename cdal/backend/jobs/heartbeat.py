"""The worker's heartbeat in the store: how others know that it is alive, wherever it runs."""

from __future__ import annotations

import logging
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import delete
from sqlalchemy.orm import Session

from cdal.backend.store.failures import STORAGE
from cdal.backend.store.store import Store
from cdal.backend.store.tables import Heartbeat, now

log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0

LATE_SECONDS = 45.0
"""A worker that was not heard of for so long is not alive: a busy one misses a beat or two."""


@contextmanager
def beating(store: Store) -> Iterator[None]:
    """Beat for as long as the worker runs; one that ends by itself takes its heartbeat along."""
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
        # Where the database is away, the heartbeat is late soon enough.
        with suppress(*STORAGE), store.transaction() as session:
            session.execute(delete(Heartbeat))


def seconds_since_beat(session: Session) -> float | None:
    """How long ago the worker was heard of; None where none runs."""
    found = session.get(Heartbeat, 1)
    return None if found is None else max(0.0, (now() - found.seen_at).total_seconds())
