"""Whether the backend can do its work, part by part, each with a sentence."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.jobs.heartbeat import LATE_SECONDS, seconds_since_beat
from cdal.backend.label_studio.transport import open_http
from cdal.backend.reports.view import View
from cdal.backend.services import Services
from cdal.backend.store.failures import STORAGE, storage_problem
from cdal.backend.store.tables import Heartbeat, Job, Project, now

LEAST_FREE_BYTES = 512 * 2**20
"""Of disk: less than that, and the next weights or scores may not fit."""

LONGEST_WAIT_S = 900.0
"""A job that may run and still waits for so long has been forgotten, or the worker hangs; behind a
long training other jobs of its lane may wait for longer, and do not count."""

LABEL_STUDIO_SECONDS = 2.0

REMEMBERED_SECONDS = 15.0
"""Label Studio is asked no more often than this, however often whoever asks."""


@dataclass(frozen=True, slots=True)
class Check:
    """A part of the backend, whether it works, and what there is to say of it."""

    name: str
    ok: bool
    text: str


class Readiness:
    """Looks at each part."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._reached: dict[str, tuple[float, Check]] = {}

    def checks(self) -> list[Check]:
        """Every part, in an order that does not change."""
        parts: Mapping[str, Callable[[], Check]] = {
            "store": self._store,
            "queue": self._queue,
            "worker": self._worker,
            "disk": self._disk,
        }
        found = [_carefully(name, part) for name, part in parts.items()]
        return [*found, *self._label_studios()]

    def _store(self) -> Check:
        with self._services.store.reading() as session:
            session.execute(select(Project.id).limit(1))
        return Check("store", True, "The database answers.")

    def _queue(self) -> Check:
        len(self._services.jobs.huey)  # raises where the messages' store is away
        with self._services.store.reading() as session:
            age = oldest_wait_s(session)
        if age > LONGEST_WAIT_S:
            return Check("queue", False, f"A job has waited for {age:.0f} s without being begun.")
        return Check("queue", True, "Jobs are handed to the worker.")

    def _worker(self) -> Check:
        with self._services.store.reading() as session:
            status = worker_status(session)
        return Check("worker", status["alive"], status["text"])

    def _disk(self) -> Check:
        free = free_bytes(self._services)
        text = f"{free / 2**30:.1f} GB are free in the data folder."
        return Check("disk", free >= LEAST_FREE_BYTES, text)

    def _label_studios(self) -> list[Check]:
        configured = self._services.config.label_studio_url
        addresses = {configured.rstrip("/")} if configured else set()
        try:
            with self._services.store.reading() as session:
                addresses |= set(session.scalars(select(Project.url).distinct()))
        except STORAGE:
            pass  # which is told above
        if not addresses:
            return [Check("label studio", True, "No project is connected yet.")]
        return [self._label_studio(url) for url in sorted(addresses)]

    def _label_studio(self, url: str) -> Check:
        with self._lock:
            asked, check = self._reached.get(url, (0.0, None))
            if check is None or time.monotonic() - asked > REMEMBERED_SECONDS:
                check = _reach(url)
                self._reached[url] = (time.monotonic(), check)
            return check


def oldest_wait_s(session: Session) -> float:
    """For how long the oldest job waits that nothing holds up, in seconds; 0 where none does."""
    held_up = select(Job.kind).where(Job.state == "running")
    query = (
        select(Job.created_at, Job.not_before)
        .where(Job.state == "pending", Job.kind.not_in(held_up))
        .order_by(Job.id)
    )
    due = [max(created, not_before or created) for created, not_before in session.execute(query)]
    return max([0.0, *((now() - since).total_seconds() for since in due)])


def free_bytes(services: Services) -> int:
    """What is free on the data folder's disk."""
    return shutil.disk_usage(services.config.data_folder).free


def _carefully(name: str, part: Callable[[], Check]) -> Check:
    try:
        return part()
    except STORAGE as error:
        return Check(name, False, storage_problem(error))
    except Exception as error:  # noqa: BLE001 — whatever a part is made of is away
        return Check(name, False, f"It cannot be used: {type(error).__name__}.")


def _reach(url: str) -> Check:
    try:
        with open_http(url, LABEL_STUDIO_SECONDS) as http:
            status = http.get(f"{url}/health").status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Check("label studio", False, f"{url} does not answer: {type(error).__name__}.")
    if status >= 500:
        return Check("label studio", False, f"{url} answers {status}.")
    return Check("label studio", True, f"{url} answers.")


def worker_status(session: Session) -> dict[str, Any]:
    """Whether the worker is alive, as JSON data with a sentence."""
    age = seconds_since_beat(session)
    if age is None:
        return {"alive": False, "text": "No worker runs; start cdal serve or cdal worker."}
    if age > LATE_SECONDS:
        text = f"The worker was last heard of {age:.0f} s ago; it was killed, or hangs."
        return {"alive": False, "text": text}
    found = session.get_one(Heartbeat, 1)
    text = f"The worker runs on {found.host} (process {found.pid})."
    return {"alive": True, "text": text}


class CheckView(View):
    name: Literal["store", "queue", "worker", "disk", "label studio"]
    ok: bool
    text: str


class ReadyView(View):
    ready: bool
    checks: list[CheckView]
