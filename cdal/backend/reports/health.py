"""Health: whether each part of the backend works, with a sentence about it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import httpx
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.jobs.workers import living, seconds_since_beat
from cdal.backend.label_studio.transport import failure_of, open_http
from cdal.backend.reports.view import View
from cdal.backend.services import Services
from cdal.backend.store.failures import STORAGE, storage_problem
from cdal.backend.store.tables import Job, Project, Worker, now

LEAST_FREE_BYTES = 512 * 2**20
"""With less free disk space, the next weights or scores may not fit."""

LONGEST_WAIT_S = 900.0
"""A job that is free to run and waits longer than this was forgotten, or the worker is stuck. Jobs
behind a long training of their lane may wait longer and do not count."""

LABEL_STUDIO_SECONDS = 2.0

LABEL_STUDIO_BYTES = 1 << 20

REMEMBERED_SECONDS = 15.0
"""How long Label Studio's answer counts, however often `/ready` is called."""

ASKED_AT_ONCE = 16
"""Label Studios; only those that are asked take threads."""

Part = Literal["store", "queue", "worker", "disk", "label studio"]


class CheckView(View):
    """Whether a part of the backend works."""

    name: Part
    ok: bool
    text: str = Field(description="A sentence for people.")


class ReadyView(View):
    """Whether the backend can do its work."""

    ready: bool
    checks: list[CheckView]


class WorkerView(View):
    """Whether the worker is alive."""

    alive: bool
    text: str = Field(description="A sentence for people.")


class Readiness:
    """Checks each part of the backend."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._reached: dict[str, tuple[float, CheckView]] = {}

    def view(self) -> ReadyView:
        """Every part, always in the same order."""
        parts: Mapping[Part, Callable[[], CheckView]] = {
            "store": self._store,
            "queue": self._queue,
            "worker": self._worker,
            "disk": self._disk,
        }
        found = [_carefully(name, part) for name, part in parts.items()]
        checks = [*found, *self._label_studios()]
        return ReadyView(ready=all(check.ok for check in checks), checks=checks)

    def _store(self) -> CheckView:
        with self._services.store.reading() as session:
            session.execute(select(Project.id).limit(1))
        return CheckView(name="store", ok=True, text="The database answers.")

    def _queue(self) -> CheckView:
        len(self._services.jobs.huey)  # raises where the message store is away
        with self._services.store.reading() as session:
            age = oldest_wait_s(session)
        if age > LONGEST_WAIT_S:
            return CheckView(
                name="queue", ok=False, text=f"A job has been waiting for {age:.0f} s."
            )
        return CheckView(name="queue", ok=True, text="Jobs reach the worker.")

    def _worker(self) -> CheckView:
        with self._services.store.reading() as session:
            worker = worker_view(session)
        return CheckView(name="worker", ok=worker.alive, text=worker.text)

    def _disk(self) -> CheckView:
        free = free_bytes(self._services)
        text = f"{free / 2**30:.1f} GB are free in the data folder."
        return CheckView(name="disk", ok=free >= LEAST_FREE_BYTES, text=text)

    def _label_studios(self) -> list[CheckView]:
        configured = self._services.config.label_studio_url
        addresses = {configured.rstrip("/")} if configured else set()
        try:
            with self._services.store.reading() as session:
                addresses |= set(session.scalars(select(Project.url).distinct()))
        except STORAGE:
            pass  # the check of the store reports it
        if not addresses:
            return [CheckView(name="label studio", ok=True, text="No project is connected yet.")]
        with self._lock:
            stale = [url for url in sorted(addresses) if not self._is_remembered(url)]
            # All at once: those that hang must not add up.
            with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
                for url, check in zip(stale, pool.map(_reach, stale), strict=True):
                    self._reached[url] = (time.monotonic(), check)
            return [self._reached[url][1] for url in sorted(addresses)]

    def _is_remembered(self, url: str) -> bool:
        known = self._reached.get(url)
        return known is not None and time.monotonic() - known[0] <= REMEMBERED_SECONDS


def oldest_wait_s(session: Session) -> float:
    """How long the oldest job that is free to run has been waiting, in seconds; 0 without one."""
    held_up = select(Job.kind).where(Job.state == "running")
    query = (
        select(Job.created_at, Job.not_before)
        .where(Job.state == "pending", Job.kind.not_in(held_up))
        .order_by(Job.id)
    )
    due = [max(created, not_before or created) for created, not_before in session.execute(query)]
    return max([0.0, *((now() - since).total_seconds() for since in due)])


def free_bytes(services: Services) -> int:
    """Free space on the data folder's disk."""
    return shutil.disk_usage(services.config.data_folder).free


def _carefully(name: Part, part: Callable[[], CheckView]) -> CheckView:
    try:
        return part()
    except STORAGE as error:
        return CheckView(name=name, ok=False, text=storage_problem(error))
    except Exception as error:  # noqa: BLE001 — any library may fail
        return CheckView(name=name, ok=False, text=f"It failed with {type(error).__name__}.")


def _reach(url: str) -> CheckView:
    try:
        limits = (LABEL_STUDIO_SECONDS, LABEL_STUDIO_SECONDS, LABEL_STUDIO_BYTES)
        with open_http(url, *limits) as http:
            status = http.get(f"{url}/health").status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return CheckView(name="label studio", ok=False, text=f"{url} {failure_of(error)}.")
    if status >= 500:
        return CheckView(name="label studio", ok=False, text=f"{url} answers {status}.")
    return CheckView(name="label studio", ok=True, text=f"{url} answers.")


def worker_view(session: Session) -> WorkerView:
    """Whether a worker is alive, by the heartbeats."""
    age, running = seconds_since_beat(session), living(session)
    if age is None:
        text = "No worker is running; start cdal serve or cdal worker."
    elif not running:
        text = f"The worker was last heard from {age:.0f} s ago; it was killed or is stuck."
    elif len(running) == 1:
        text = f"The worker is running {_place(running[0])}."
    else:
        places = ", ".join(_place(worker) for worker in running)
        text = f"{len(running)} workers are running: {places}."
    return WorkerView(alive=bool(running), text=text)


def _place(worker: Worker) -> str:
    return f"on {worker.host} (process {worker.pid})"
