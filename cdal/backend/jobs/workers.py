"""The workers of a database: who runs, by their heartbeats, and who has died.

SQLite has one worker. On PostgreSQL there may be several, also on several machines; a worker that
has died is buried by another, which puts its jobs back to wait.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from sqlalchemy import CursorResult, delete, func, select, update
from sqlalchemy.orm import Session

from cdal.backend.errors import WorkerError
from cdal.backend.store.database import Store
from cdal.backend.store.failures import STORAGE
from cdal.backend.store.tables import Worker, now

log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0

LATE_SECONDS = 45.0
"""A worker without a heartbeat for this long is not alive; a busy one misses a beat or two."""

ONLY = 1
"""The number of SQLite's only worker."""


class Presence:
    """A running worker, as the others see it.

    Attributes:
        number: by which jobs and messages name it. PostgreSQL never gives one twice.
        lost: set once others take this worker for dead, and its jobs may run elsewhere, until it
            has returned.
        entered: whether the others know of it, as of the last heartbeat.
    """

    def __init__(self, store: Store, number: int, folder: str) -> None:
        self.number = number
        self._folder = folder
        self._has_beaten = False
        self.lost = threading.Event()
        self.entered = True
        self._jobs = 0
        self._lock = threading.Lock()
        self._store = store
        self._heard_from_store = self._since = time.monotonic()

    @contextmanager
    def at_work(self) -> Iterator[bool]:
        """Held while a job runs; yields whether it may begin, which it may not while `lost`."""
        with self._lock:
            begins = not self.lost.is_set()
            self._jobs += begins
        try:
            yield begins
        finally:
            with self._lock:
                self._jobs -= begins

    def beat(self) -> None:
        """Tell the others that this worker is alive.

        If they took it for dead, since its machine was suspended or had no time for it, it enters
        again once its jobs have stopped.
        """
        is_entered = True
        with self._store.transaction() as session:
            if self._store.has_one_worker and not self._has_beaten:
                session.execute(delete(Worker))  # one that was killed
                entered = _this_worker(session, self._folder)
                entered.id = self.number
                session.add(entered)
            else:
                known: CursorResult[object] = session.execute(  # type: ignore[assignment]
                    update(Worker).filter_by(id=self.number).values(seen_at=_clock(session))
                )
                if not known.rowcount:
                    is_entered = self._enter_again(session)
        self._has_beaten = True
        if time.monotonic() - self._heard_from_store > LATE_SECONDS:
            self._since = time.monotonic()  # the store was away, for the others most likely, too
        self._heard_from_store = time.monotonic()
        self.entered = is_entered

    def _enter_again(self, session: Session) -> bool:
        """Enter this worker again unless it has jobs that must stop first; returns whether."""
        with self._lock:
            self.lost.set()
            if self._jobs:
                return False
        entered = _this_worker(session, self._folder)
        entered.id = self.number
        session.add(entered)
        return True

    def bury(self, session: Session) -> list[int]:
        """Forget the workers that have died; returns their numbers."""
        at, dead = _clock(session), []
        may_judge = time.monotonic() - self._since > LATE_SECONDS
        for other in session.scalars(select(Worker).where(Worker.id != self.number)):
            late = abs((at - other.seen_at).total_seconds()) > LATE_SECONDS
            if _has_ended(other) or (late and may_judge):
                dead.append(other.id)
                session.delete(other)
        return dead


@contextmanager
def present(
    store: Store, folder: str, on_beat: Callable[[Presence], None] | None = None
) -> Iterator[Presence]:
    """Be one of the database's workers; one that ends by itself leaves no trace.

    Args:
        store: the database. On SQLite the caller makes sure that there is no other worker.
        folder: identifies the data folder, which all workers share.
        on_beat: called after each heartbeat.

    Raises:
        WorkerError: the other workers have another data folder.
    """
    if store.has_one_worker:
        presence = Presence(store, ONLY, folder)
        with suppress(*STORAGE):  # a full disk keeps nobody from working; the next beat may succeed
            presence.beat()
    else:
        presence = Presence(store, _enter(store, folder), folder)
    ended = threading.Event()

    def keep_beating() -> None:
        while not ended.wait(BEAT_SECONDS):
            try:
                presence.beat()
                if on_beat is not None:
                    on_beat(presence)
            except Exception as error:  # noqa: BLE001 — a full disk, a locked database: for now
                log.warning("The worker's heartbeat was left out: %s", type(error).__name__)

    thread = threading.Thread(target=keep_beating, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield presence
    finally:
        ended.set()
        thread.join()
        # If the database is away, the heartbeat will soon be late anyway.
        with suppress(*STORAGE), store.transaction() as session:
            session.execute(delete(Worker).filter_by(id=presence.number))


def _enter(store: Store, folder: str) -> int:
    """Add this worker to those of the database; returns its number."""
    with store.transaction() as session:
        for other in living(session):
            if other.folder != folder and not _has_ended(other):
                raise WorkerError(
                    f"A worker on {other.host} uses the same database with another data folder; "
                    "stop it, or let both use one shared folder (MODEL_DIR)."
                )
        entered = _this_worker(session, folder)
        session.add(entered)
        session.flush()
        return entered.id


def _this_worker(session: Session, folder: str) -> Worker:
    at = _clock(session)
    return Worker(
        host=platform.node(),
        machine=_machine(),
        pid=os.getpid(),
        folder=folder,
        started_at=at,
        seen_at=at,
    )


def living(session: Session) -> Sequence[Worker]:
    """The workers that run, the oldest first."""
    at = _clock(session)
    workers = session.scalars(select(Worker).order_by(Worker.id))
    return [one for one in workers if abs((at - one.seen_at).total_seconds()) <= LATE_SECONDS]


def seconds_since_beat(session: Session) -> float | None:
    """Seconds since the last heartbeat of any worker; None if no worker runs."""
    beats = session.scalars(select(Worker.seen_at)).all()
    at = _clock(session)
    return min((abs((at - beat).total_seconds()) for beat in beats), default=None)


def _clock(session: Session) -> datetime:
    """The time by one clock for all machines: the database server's, where there is one."""
    if session.get_bind().dialect.name == "sqlite":
        return now()
    at: datetime = session.scalars(select(func.timezone("UTC", func.clock_timestamp()))).one()
    return at


def _machine() -> str:
    """What identifies this start of this machine, or of this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux
        return platform.node()


def _has_ended(other: Worker) -> bool:
    """Whether the process of a worker on this machine is gone."""
    if other.machine != _machine():
        return False
    if other.pid == os.getpid():  # a number that was given again
        return True
    try:
        os.kill(other.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs, as another user
        pass
    return False
