"""A backend whose processes are killed and started again, and what must be true afterwards."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import create_engine, text

from cdal.backend.jobs.manager import MAX_DEATHS
from cdal.demo.backend import BackendServer
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.process import free_port
from support import killed
from support.forked import fork, web
from support.processes import PATIENCE, children, environment
from support.scenario import Scenario

GIVEN_UP = f"The worker died {MAX_DEATHS} times while it ran this job."
RESUMED = "After a kill, resumed: "


class KillableBackend(BackendServer):
    """Web process and worker, started, killed and watched separately."""

    def __init__(
        self,
        folder: Path,
        label_studio: LabelStudioServer,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        given = (label_studio.url, label_studio.token, variables)
        super().__init__(folder, free_port(), *given)
        folder.mkdir(exist_ok=True)
        self.passed = folder / "passed.txt"
        self.passed.touch()
        self._environment = environment(self.data_folder, **self.environment)
        self._web: BaseProcess | None = None
        self._worker: BaseProcess | None = None
        self.kills: Counter[str] = Counter()
        """How often each process was killed, by place."""
        self.worker_kills = 0
        self._said_before = 0

    def start_web(self) -> None:
        self._web = fork(web, self._environment, self.log)
        self.wait_until_up(f"{self.url}/health", PATIENCE)

    def start_worker(self, fatal: str | None = None) -> None:
        """Start the worker; it dies at the fatal point."""
        self._said_before = self.times_resumed()
        self._worker = fork(killed.worker, self._environment, self.log, self.passed, fatal)

    def kill_web(self, where: str = "at a random moment") -> None:
        self._kill(self._web)
        self.kills[f"web {where}"] += 1

    def kill_worker(self, where: str = "at a random moment") -> None:
        self._kill(self._worker)
        self.kills[f"worker {where}"] += 1
        self.worker_kills += 1

    @staticmethod
    def _kill(process: BaseProcess | None) -> None:
        assert process is not None
        assert process.pid is not None
        assert process.is_alive()
        for pid in [process.pid, *children(process.pid)]:
            os.kill(pid, signal.SIGKILL)
        process.join()

    def worker_died_at(self, fatal: str) -> bool:
        """Whether the worker has killed itself; counted once."""
        assert self._worker is not None
        code = self._worker.exitcode
        if code is None:
            return False
        assert code == -signal.SIGKILL, f"the worker ended with code {code}; see {self.log}"
        self.kills[f"worker {fatal}"] += 1
        self.worker_kills += 1
        return True

    def worker_runs(self) -> bool:
        return self._worker is not None and self._worker.is_alive()

    def times_resumed(self) -> int:
        """How often a worker has reported what it resumed."""
        return self.log.read_text().count(RESUMED) if self.log.exists() else 0

    def said_what_it_resumed(self) -> bool:
        """Whether the running worker has reported it exactly once."""
        return self.times_resumed() == self._said_before + 1

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database answers to a query."""
        engine = create_engine(self._environment.get("CDAL_DATABASE_URL") or self._sqlite)
        with engine.connect() as connection:
            found = [tuple(row) for row in connection.execute(text(query))]
        engine.dispose()
        return found

    @property
    def _sqlite(self) -> str:
        return f"sqlite:///{self.data_folder / 'cdal.sqlite'}"

    def points(self) -> list[str]:
        """The names of the recurring points, in order."""
        return [
            name
            for name, times in Counter(self.passed.read_text().splitlines()).items()
            if times > 1
        ]

    def processes(self) -> list[BaseProcess | None]:
        return [self._web, self._worker]

    def stop(self) -> None:
        for process in self.processes():
            if process is not None:
                process.terminate()
                process.join(60)
                process.close()


class TwoWorkers(KillableBackend):
    """The same on PostgreSQL, with a second worker that only random kills reach."""

    def __init__(self, folder: Path, label_studio: LabelStudioServer, database_url: str) -> None:
        super().__init__(folder, label_studio, {"CDAL_DATABASE_URL": database_url})
        self._second: BaseProcess | None = None
        self._draws = random.Random(1)

    def start_worker(self, fatal: str | None = None) -> None:
        if not super().worker_runs():
            super().start_worker(fatal)
        if self._second is None or not self._second.is_alive():
            environment, log = self._environment, self.log
            self._second = fork(killed.worker, environment, log, self.passed, None)

    def kill_worker(self, where: str = "at a random moment") -> None:
        if where == "at a random moment" and self._draws.random() < 0.5:
            self._kill(self._second)
            self.kills[f"second worker {where}"] += 1
        else:
            super().kill_worker(where)

    def worker_runs(self) -> bool:
        return super().worker_runs() and self._second is not None and self._second.is_alive()

    def said_what_it_resumed(self) -> bool:
        """Whether any worker has: the second one resumes what the first one did, and vice versa."""
        return "Resumed by another: " in self.log.read_text()

    def processes(self) -> list[BaseProcess | None]:
        return [*super().processes(), self._second]


def drive(
    scenario: Scenario, backend: KillableBackend, fatal: str, most_labels: int = 1000
) -> bool:
    """Label until the worker dies at a point; False if it has not after so many labels."""
    annotator = scenario.annotator()
    labelled = 0
    deadline = time.monotonic() + PATIENCE
    while not backend.worker_died_at(fatal):
        assert time.monotonic() < deadline, f'the worker never came to "{fatal}"'
        if labelled >= most_labels:
            return False
        if scenario.is_idle(scenario.status()):  # it waits for somebody to label
            labelled += len(label_some(scenario, annotator, 1))
        time.sleep(0.5)
    return True


def label_some(scenario: Scenario, annotator: Any, count: int) -> list[int]:
    """Label what the stream serves, up to this many tasks; returns them."""
    labelled = []
    for _ in range(count):
        task = annotator.next_task()
        if task is None:
            break
        annotator.submit(task, scenario.truth[task])
        labelled.append(task)
    return labelled


def check_invariants(scenario: Scenario, backend: KillableBackend) -> None:
    """Check what must be true once nothing is left to do, whatever was killed."""
    status = scenario.settle()
    assert status["problem"] is None
    _check_jobs(backend, status)
    _check_predictions(scenario)
    _check_files(backend, status)
    # A worker that is killed while it starts has no time to report it; the next one does.
    assert backend.said_what_it_resumed()
    assert "Traceback" not in backend.log.read_text()
    assert (
        status["queue_version"]
        == scenario.project.sdk.projects.get(id=scenario.number).model_version
    )
    # The stream serves the queue in its order, then what is topped up.
    labelled = {t for (t,) in backend.rows("SELECT task_id FROM tasks WHERE annotations > 0")}
    waiting = [task for task in scenario.queue() if task not in labelled]
    assert scenario.label_stream(3) == waiting[:3]


def check_all_labels_are_trained_on(scenario: Scenario) -> None:
    """Check that no submitted label is missing from the next training."""
    answer = httpx.get(
        f"{scenario.label_studio.url}/api/projects/{scenario.number}",
        headers={"Authorization": f"Token {scenario.label_studio.token}"},
        timeout=PATIENCE,
    ).json()
    scenario.project.start_training(scenario.connection)
    scenario.wait(
        "a model of all labels",
        lambda s: (
            bool(s["versions"])
            and s["versions"][-1]["labels"] == answer["num_tasks_with_annotations"]
        ),
    )


def _check_jobs(backend: KillableBackend, status: dict[str, Any]) -> None:
    ends = set(backend.rows("SELECT state, error FROM jobs WHERE state != 'done'"))
    marks = [mark for (mark,) in backend.rows("SELECT fingerprint FROM model_versions")]
    # Killing at each point of a job kills some jobs so often that they are given up.
    assert ends <= {("failed", GIVEN_UP)}, "a job was lost"
    assert len(marks) == len(set(marks)), "a training was done twice with effect"
    numbers = [version["number"] for version in status["versions"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [r["number"] for r in status["rounds"]] == list(range(1, len(status["rounds"]) + 1))
    assert [r["state"] for r in status["rounds"]].count("open") == 1


def _check_predictions(scenario: Scenario) -> None:
    given = scenario.project.sdk.predictions.list(project=scenario.number)
    pairs = Counter((prediction.task, prediction.model_version) for prediction in given)
    assert max(pairs.values()) == 1, "a task has two predictions of one queue version"


def _check_files(backend: KillableBackend, status: dict[str, Any]) -> None:
    folder = backend.data_folder / "projects" / str(status["id"])
    versions = {str(version["number"]) for version in status["versions"]}
    weights = {path.name for path in (folder / "versions").iterdir()}
    assert weights <= versions, "weights of no version"
    assert {path.name for path in (folder / "scores").iterdir()} <= versions
    assert not list(folder.rglob("*.unfinished"))
