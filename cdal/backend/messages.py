"""The messages that carry jobs' numbers to the worker: huey's, in a file or in Redis."""

from __future__ import annotations

import json
from datetime import datetime

from huey import Huey, RedisHuey, SqliteHuey
from huey.registry import Message
from huey.serializer import Serializer

from cdal.backend.config import ServerConfig

NAME = "cdal"


class JSONSerializer(Serializer):  # type: ignore[misc]
    """Huey's messages as JSON: its own serializer is pickle, which can run code when loaded."""

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


def open_messages(config: ServerConfig) -> Huey:
    """The queue of messages; nothing is asked of a Redis server yet."""
    common = {"serializer": JSONSerializer(), "results": False}
    if config.redis_url is None:
        return SqliteHuey(NAME, filename=str(config.jobs_file), **common)
    return RedisHuey(NAME, url=config.redis_url.get_secret_value(), **common)
