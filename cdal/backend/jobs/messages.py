"""The messages that carry job numbers to the workers: huey's, in a file or in Redis."""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime

from huey import Huey, RedisHuey, SqliteHuey
from huey.registry import Message
from huey.serializer import Serializer

from cdal.backend.config import ServerConfig
from cdal.backend.jobs.workers import ONLY
from cdal.backend.store.sqlite_file import make_private

NAME = "cdal"
AGAIN_S = 60.0
WAIT_S = 30.0
"""How long a writer of the file waits for another."""


class JSONSerializer(Serializer):  # type: ignore[misc]
    """Serializes huey's messages as JSON: its default, pickle, can run code when loaded."""

    def _serialize(self, data: object) -> bytes:
        if isinstance(data, Message):
            data = list(data._replace(eta=data.eta.isoformat() if data.eta else None))
        return json.dumps(data).encode()

    def _deserialize(self, data: bytes) -> object:
        value = json.loads(data)
        if not isinstance(value, list):
            return value
        message = Message(*value)
        eta = datetime.fromisoformat(message.eta) if message.eta else None
        return message._replace(eta=eta, args=tuple(message.args))


def open_messages(config: ServerConfig, worker: int = ONLY) -> Huey:
    """Open the queue of a worker's messages; this does not contact a Redis server yet."""
    name, common = f"{NAME}-{worker}", {"serializer": JSONSerializer(), "results": False}
    if config.redis_url is None:
        make_private(config.jobs_file)
        # As the store: on a busy machine, the writers of all workers wait for each other.
        return SqliteHuey(name, filename=str(config.jobs_file), timeout=WAIT_S, **common)
    return RedisHuey(name, url=config.redis_url.get_secret_value(), **common)


class AwayFilter(logging.Filter):
    """Reduces the tracebacks that huey logs while its storage is away to one line per minute.

    Each of its threads tries several times per second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._silent_until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log this record; shortens it if it is about huey's storage."""
        if not record.exc_info or not str(record.msg).startswith("Error "):
            return True
        clock = time.monotonic()
        if clock < self._silent_until:
            return False
        self._silent_until = clock + AGAIN_S
        error = record.exc_info[1]
        record.msg, record.exc_info = "The queue of messages cannot be used now: %s", None
        record.args = (type(error).__name__,)
        return True


def log_less() -> None:
    """Make huey's threads log a storage that is away in one line per minute."""
    away = AwayFilter()
    for name in ("Worker", "Scheduler"):
        logging.getLogger(f"huey.consumer.{name}").addFilter(away)
