"""Eight people label for hours while the model retrains: nothing leaks and nothing goes wrong."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.processes import children
from support.scenario import Scenario

from cdal.demo.backend import BackendServer
from cdal.demo.label_studio import LabelStudioServer

pytestmark = [pytest.mark.label_studio, pytest.mark.data]

PEOPLE = 8


class Memory:
    """Resident memory of the web process and of the worker, in MiB, over the annotations."""

    def __init__(self, server: BackendServer) -> None:
        assert server.pid is not None
        self._pids = {self._name(pid): pid for pid in children(server.pid)}
        self.samples: list[tuple[int, dict[str, float]]] = []

    @staticmethod
    def _name(pid: int) -> str:
        # Gunicorn has two processes; the later one answers.
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return "worker" if b"cdal\0worker" in command else "web"

    def look(self, annotations: int) -> None:
        found = {}
        for name, pid in self._pids.items():
            status = Path(f"/proc/{pid}/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
            found[name] = int(line.split()[1]) / 1024
        self.samples.append((annotations, found))

    def medians(self, name: str, total: int) -> list[float]:
        """The median of each quarter of the annotations."""
        quarters: list[list[float]] = [[], [], [], []]
        for count, found in self.samples:
            quarters[min(3, 4 * count // total)].append(found[name])
        return [statistics.median(quarter) for quarter in quarters]


def label_together(
    scenario: Scenario, tokens: list[str], total: int, memory: Memory
) -> tuple[list[int], int]:
    """Everybody labels what the stream serves until this many labels are submitted.

    Returns:
        The task of each label, and how many requests Label Studio failed.
    """
    lock = threading.Lock()
    tasks: list[int] = []
    errors = 0

    def label(token: str) -> None:
        nonlocal errors
        annotator = scenario.annotator(token)
        while True:
            with lock:
                if len(tasks) >= total:
                    return
            try:
                task = annotator.next_task()
                if task is None:
                    time.sleep(1)
                    continue
                annotator.submit(task, scenario.truth[task])
            except httpx.HTTPError:  # Label Studio's SQLite is locked: a person would press again
                errors += 1
                time.sleep(0.5)
                continue
            with lock:
                tasks.append(task)

    threads = [threading.Thread(target=label, args=(token,)) for token in tokens]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        memory.look(min(len(tasks), total - 1))
        time.sleep(1)
    return tasks, errors


def soak(
    make_scenario: Callable[..., Any],
    label_studio: LabelStudioServer,
    server: BackendServer,
    annotations: int,
    budget: int,
) -> Memory:
    tokens = [
        label_studio.sign_up(f"soak-{annotations}-{number}@example.com", "a-long-password")
        for number in range(PEOPLE)
    ]
    scenario = make_scenario(
        annotations + 200,
        server=server,
        classes=10,
        budget=budget,
        min_labels=20,
        epochs=2,
        image_size=32,
        reserve=None,
    )
    scenario.wait_for_round(1)
    memory = Memory(server)
    begun = time.monotonic()
    tasks, errors = label_together(scenario, tokens, annotations, memory)
    seconds = time.monotonic() - begun
    scenario.settle(600)
    # A label whose hint was lost is found by the minute's poll.
    distinct = len(set(tasks))
    status = scenario.wait("every label", lambda found: found["labelled"] == distinct, 120)
    print(
        f"{annotations} annotations by {PEOPLE} people in {seconds:.0f} s, "
        f"{len(status['versions'])} model versions, {len(status['rounds'])} rounds, "
        f"{errors} requests that Label Studio itself failed, "
        f"{len(tasks) - distinct} tasks that it served to two people"
    )
    for name in ("web", "worker"):
        quarters = ", ".join(f"{m:.0f}" for m in memory.medians(name, annotations))
        print(f"memory of the {name}, MiB, median of each quarter: {quarters}")
    assert status["problem"] is None
    assert len(status["versions"]) >= annotations / budget / 3
    log = server.log.read_text()
    assert "Traceback" not in log
    assert " ERROR " not in log
    return memory


@pytest.mark.endurance
def test_a_short_soak(
    make_scenario: Callable[..., Any],
    label_studio: LabelStudioServer,
    new_backend: BackendServer,
) -> None:
    soak(make_scenario, label_studio, new_backend, annotations=64, budget=24)


@pytest.mark.endurance
@pytest.mark.timeout(4 * 3600)
def test_a_long_soak_in_which_memory_is_flat(
    make_scenario: Callable[..., Any],
    label_studio: LabelStudioServer,
    new_backend: BackendServer,
) -> None:
    memory = soak(make_scenario, label_studio, new_backend, annotations=2000, budget=100)
    for name in ("web", "worker"):
        medians = memory.medians(name, 2000)
        assert medians[3] <= 1.05 * medians[2], f"the {name} grows: {medians}"
