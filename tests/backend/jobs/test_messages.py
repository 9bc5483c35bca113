"""Messages: JSON in a file or in Redis, never pickled."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import redis
from huey.registry import Message
from support.offline import add_project, jobs_of, make_config, make_services
from support.servers import RedisServer

from cdal.backend.jobs.messages import AwayFilter, JSONSerializer, open_messages
from cdal.demo.process import free_port

PICKLE = b"cos\ngetcwd\n(tR."  # loading it would call `os.getcwd`


def test_messages_are_json_and_survive_the_journey() -> None:
    serializer = JSONSerializer()
    eta = datetime(2026, 1, 2, 3, 4, 5, 678)  # without zone, as huey's own
    message = Message("id", "work", eta, 0, 0, None, (17,), {}, None, None)
    data = serializer.serialize(message)
    json.loads(data)  # fails on anything else
    back = serializer.deserialize(data)
    assert back == message
    assert back.eta == eta
    assert back.args == (17,)
    assert serializer.deserialize(serializer.serialize(message._replace(eta=None))).eta is None


def in_file(folder: Path) -> list[bytes]:
    with sqlite3.connect(folder / "jobs.sqlite") as database:
        stored = [bytes(row[0]) for row in database.execute("SELECT data FROM task")]
    database.close()
    return stored


def in_redis(server: RedisServer) -> list[bytes]:
    with redis.Redis.from_url(server.url) as client:
        (key,) = client.keys("huey.redis.*")
        stored: list[bytes] = client.lrange(key, 0, -1)
    return stored


def test_what_lies_in_the_file_is_no_pickle(tmp_path: Path) -> None:
    check_what_lies({}, tmp_path, lambda: in_file(tmp_path))


def test_what_lies_in_redis_is_no_pickle(tmp_path: Path, redis_server: RedisServer) -> None:
    check_what_lies({"redis_url": redis_server.url}, tmp_path, lambda: in_redis(redis_server))


def check_what_lies(
    changes: dict[str, str], folder: Path, stored: Callable[[], list[bytes]]
) -> None:
    services = make_services(folder, **changes)
    services.jobs.huey.flush()
    add_project(services)
    services.jobs.ask(1, "sync", "test")
    services.jobs._send(1, delay_s=60)
    found = stored()
    assert len(found) == 2
    for data in found:
        assert json.loads(data)[1].endswith("work")


def test_a_pickle_in_the_file_is_not_loaded() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — what the JSON module says of it
        JSONSerializer().deserialize(PICKLE)


def test_a_pickle_in_redis_is_not_loaded(tmp_path: Path, redis_server: RedisServer) -> None:
    messages = open_messages(make_config(tmp_path, redis_url=redis_server.url))
    messages.flush()
    messages.storage.enqueue(PICKLE)
    with pytest.raises(ValueError):  # noqa: PT011
        messages.dequeue()
    assert len(messages) == 0  # and does not stand in the way of the next


def test_messages_come_out_of_redis_as_they_went_in(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """A message goes from the web process to the worker, which opened its own queue."""
    web, worker = (make_services(tmp_path, redis_url=redis_server.url) for _ in range(2))
    web.jobs.huey.flush()
    add_project(web)
    numbers = [web.jobs.ask(1, kind, "test") for kind in ("sync", "train", "score")]
    arrived = [worker.jobs.huey.dequeue().args for _ in numbers]
    assert arrived == [(number,) for number in numbers]


def test_without_redis_a_job_is_recorded_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    services = make_services(tmp_path, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    add_project(services)
    with caplog.at_level(logging.WARNING):
        services.jobs.ask(1, "train", "test")
    assert jobs_of(services) == [("train", "pending")]
    assert "Job 1 waits for the minute's poll" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_queue_that_is_away_is_a_line_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log a traceback as huey's threads do, several times per second."""
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    away = AwayFilter()

    def log(message: str) -> None:
        for name in ("Worker", "Scheduler"):
            logger = logging.getLogger(f"test.{name}")
            logger.addFilter(away)
            logger.error(message, exc_info=redis.ConnectionError("away"))

    for _ in range(3):
        log("Error reading from queue")
        log("Error reading schedule.")
    assert caplog.messages == ["The queue of messages cannot be used now: ConnectionError"]
    clock[0] += 61
    log("Error reading from queue")
    assert len(caplog.messages) == 2
    assert "Traceback" not in caplog.text
    log("Unhandled error during execution of a task.")
    assert caplog.text.count("ConnectionError: away") == 2  # logged in full, as before
