"""The whole loop on PostgreSQL and Redis: web processes and workers, run separately."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
from support.forked import ForkedServer, web
from support.held import HeldTrainings, worker
from support.processes import PATIENCE, wait_until
from support.servers import PostgreSQL, RedisServer

from cdal.demo.backend import START_SECONDS
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.process import free_port

pytestmark = [pytest.mark.label_studio, pytest.mark.data]


class Deployment:
    """Web processes and workers on one data folder, database and queue."""

    def __init__(
        self,
        folder: Path,
        label_studio: LabelStudioServer,
        database_url: str,
        redis_url: str,
        webs: int = 2,
    ) -> None:
        self.trainings = HeldTrainings(folder)
        urls = {"CDAL_DATABASE_URL": database_url, "CDAL_REDIS_URL": redis_url}
        environment = urls | self.trainings.environment
        given = (label_studio.url, label_studio.token, environment)
        self.webs = [ForkedServer(folder, free_port(), *given, target=web) for _ in range(webs)]
        for number, made in enumerate(self.webs):
            made.log = folder / f"web-{number}.log"
        self.workers = [ForkedServer(folder, free_port(), *given, target=worker) for _ in range(2)]
        for number, made in enumerate(self.workers):
            made.log = folder / f"worker-{number}.log"

    @property
    def processes(self) -> list[ForkedServer]:
        return [*self.webs, *self.workers]

    def log(self) -> str:
        return "".join(process.log.read_text() for process in self.processes)


@pytest.fixture(scope="module")
def database_address(postgresql: PostgreSQL) -> str:
    return postgresql.new_store()


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory,
    label_studio: LabelStudioServer,
    database_address: str,
    redis_server: RedisServer,
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    made = Deployment(folder, label_studio, database_address, redis_server.url)
    with ExitStack() as stack:
        for process in made.processes:
            process.start()
            stack.callback(process.stop)
        for web in made.webs:
            web.wait_until_up(f"{web.url}/health", START_SECONDS)
        yield made


def test_two_rounds_on_servers(
    deployment: Deployment,
    make_scenario: Callable[..., Any],
    database_address: str,
    redis_server: RedisServer,
) -> None:
    first, second = deployment.webs
    scenario = make_scenario(40, server=first, min_labels=4)
    for number in (1, 2):
        scenario.wait_for_round(number)
        queue = scenario.queue()
        assert scenario.label_stream(8) == queue[:8]
    status = scenario.wait("second model", lambda s: len(s["versions"]) == 2)
    assert [version["labels"] for version in status["versions"]] == [8, 16]

    # Both web processes give the same answers, and predict with the weights that the worker wrote.
    scenario.wait_for_round(3)
    scenario.settle()
    scenario.wait("the same answers", lambda status: second.status(scenario.number) == status)
    tasks = [
        {"id": None, "data": {"image": task.data["image"]}}
        for task in scenario.project.sdk.tasks.list(project=scenario.number, page_size=3).items
    ]
    answer = httpx.post(
        f"{second.url}/predict",
        json={"tasks": tasks, "project": uid_of(scenario)},
        timeout=PATIENCE,
    )
    results = answer.raise_for_status().json()["results"]
    assert len(results) == len(tasks) == 3
    assert all(result["result"][0]["value"]["choices"] for result in results)

    # All state is on the servers, and none of it is a pickle.
    assert not list(first.data_folder.glob("*.sqlite*"))
    with psycopg.connect(database_address) as connection:
        assert connection.execute("SELECT count(*) FROM rounds").fetchone() == (3,)
    with redis.Redis.from_url(redis_server.url) as client:
        assert [key for key in client.scan_iter() if not key.startswith(b"huey.")] == []
    log = deployment.log()
    assert "Traceback" not in log
    assert "postgresql://" not in log


def test_a_burst_at_two_web_processes_makes_one_training(
    deployment: Deployment, make_scenario: Callable[..., Any]
) -> None:
    scenario = make_scenario(20, server=deployment.webs[0])
    scenario.wait_for_round(1)
    scenario.settle()
    for each in deployment.workers:
        each.stop()
    body = {"action": "START_TRAINING", "project": {"id": scenario.number}}
    jobs = {
        httpx.post(f"{web.url}/webhook", json=body, timeout=PATIENCE).json()["job"]
        for web in deployment.webs * 10
    }
    assert len(jobs) == 1
    for each in deployment.workers:
        each.start()


def training_worker(database_url: str) -> int:
    """The process that runs the training."""
    query = """SELECT pid FROM workers JOIN jobs ON workers.id = jobs.worker_id
               WHERE jobs.kind = 'train' AND jobs.state = 'running'"""
    with psycopg.connect(database_url) as connection:
        ((pid,),) = connection.execute(query).fetchall()
    return int(pid)


def uid_of(scenario: Any) -> str:
    project = scenario.project.sdk.projects.get(id=scenario.number)
    return f"{scenario.number}.{int(project.created_at.timestamp())}"


def test_a_restart_of_both_servers_in_the_middle_of_a_training(
    tmp_path: Path, label_studio: LabelStudioServer, make_scenario: Callable[..., Any]
) -> None:
    """As after a power cut: what was committed is kept, and the training is done once.

    Then the worker that trains is killed, and the other one trains instead.
    """
    postgresql, redis_server = PostgreSQL(), RedisServer()
    with ExitStack() as stack:
        for server in (postgresql, redis_server):
            stack.callback(server.close)
            server.start()
        url = postgresql.new_store()
        made = Deployment(tmp_path, label_studio, url, redis_server.url, webs=1)
        for process in made.processes:
            process.start()
            stack.callback(process.stop)
        web = made.webs[0]
        web.wait_until_up(f"{web.url}/health", START_SECONDS)
        scenario = make_scenario(20, server=web, min_labels=4)
        scenario.wait_for_round(1)
        with made.trainings.held():
            scenario.label(scenario.queue()[:8])
            made.trainings.wait_for_training()

            redis_server.kill()
            postgresql.kill()
            # Its answer is a sentence; the web process itself goes on.
            answer = httpx.get(f"{web.url}/api/v1/projects", timeout=PATIENCE)
            assert (answer.status_code, list(answer.json())) == (503, ["error"])
            # The training has noticed, and goes on.
            wait_until("training without a database", lambda: "goes on without" in made.log())
            postgresql.start()
            redis_server.start()
            os.kill(training_worker(url), signal.SIGKILL)
            wait_until("take-over", lambda: "Resumed by another: " in made.log())

        status = scenario.wait("model", lambda s: s["versions"] != [])
        status = scenario.wait_for_round(2)
        assert [version["labels"] for version in status["versions"]] == [8]
        assert status["rounds"][0]["state"] == "closed"
        assert "Traceback" not in made.log()
