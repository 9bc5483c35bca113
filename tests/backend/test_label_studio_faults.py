"""A real Label Studio that fails: the backend waits, reports it, and never serves half a queue."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.faulty import FaultyLabelStudio, answers, cut_after, cut_before, meanwhile, slow
from support.processes import PATIENCE

from cdal.demo.backend import BackendServer
from cdal.demo.label_studio import LabelStudioServer

pytestmark = [pytest.mark.label_studio, pytest.mark.data]

Make = Callable[..., Any]

SETTINGS = {"budget": 4, "reserve": 4, "min_labels": 4, "epochs": 1, "image_size": 32}
IMPORT = ("POST", "/import/predictions")


@pytest.fixture(scope="module")
def proxy(label_studio: LabelStudioServer) -> Iterator[FaultyLabelStudio]:
    with FaultyLabelStudio(label_studio.url) as made:
        yield made


@pytest.fixture(scope="module")
def troubled(start_backend: Callable[..., BackendServer], proxy: FaultyLabelStudio) -> Any:
    return start_backend(LABEL_STUDIO_URL=proxy.url)


def check_queue(scenario: Any) -> None:
    """Check that the stream serves the whole queue in order, and no task has two predictions."""
    version = scenario.settle()["queue_version"]
    given = scenario.project.sdk.predictions.list(project=scenario.number)
    pairs = Counter((p.task, p.model_version) for p in given)
    assert max(pairs.values()) == 1
    ours = sorted((p for p in given if p.model_version == version), key=lambda p: p.score)
    queue = scenario.queue()
    assert [p.task for p in ours] == queue[: len(ours)]
    assert len(ours) >= min(8, len(queue))
    assert scenario.label_stream(2) == queue[:2]


def test_connections_that_break_and_servers_that_err(
    make_scenario: Make, proxy: FaultyLabelStudio, troubled: BackendServer
) -> None:
    proxy.expect(*IMPORT, cut_after)
    scenario = make_scenario(60, server=troubled, **SETTINGS)
    status = scenario.wait_for_round(1)
    # The first import's outcome is unknown, so it was repeated under another name.
    assert status["queue_version"] == "CDAL round 1.2"
    check_queue(scenario)

    proxy.expect("GET", "/api/tasks", *[answers(500)] * 4)
    proxy.expect(*IMPORT, cut_before, answers(502))
    proxy.expect("PATCH", "/api/projects/", answers(503))
    proxy.expect("GET", "/data/local-files", answers(500), cut_before)
    scenario.label_stream(3)
    scenario.wait_for_round(2)
    check_queue(scenario)
    assert proxy.left == 0
    assert scenario.settle()["problem"] is None

    proxy.always(slow(0.5))
    scenario.label_stream(4)
    scenario.wait_for_round(3)
    proxy.always(None)
    check_queue(scenario)


def test_a_token_that_is_revoked_and_given_back(
    make_scenario: Make, proxy: FaultyLabelStudio, troubled: BackendServer
) -> None:
    scenario = make_scenario(40, server=troubled, **SETTINGS)
    scenario.wait_for_round(1)
    scenario.settle()  # its typical images have been found, so no image is refused
    proxy.always(answers(401))
    scenario.label_stream(4)
    status = scenario.wait("problem", lambda s: s["problem"])
    assert status["problem"].startswith("Label Studio refused to read the project: 401")
    assert [r["state"] for r in status["rounds"]] == ["open"]  # still open
    proxy.always(None)
    status = scenario.wait_for_round(2)
    assert status["versions"][-1]["labels"] == 4
    scenario.wait("end of the problem", lambda s: s["problem"] is None)


def test_tasks_that_are_deleted_while_they_are_queued(
    make_scenario: Make, proxy: FaultyLabelStudio, troubled: BackendServer
) -> None:
    scenario = make_scenario(40, server=troubled, connect=False, **SETTINGS)
    sdk = scenario.project.sdk
    gone = list(scenario.truth)[:30]

    def delete() -> None:
        for task in gone:
            sdk.tasks.delete(id=str(task))

    proxy.expect("POST", f"/projects/{scenario.number}/import/predictions", meanwhile(delete))
    scenario.connect()
    scenario.wait_for_round(1)
    assert proxy.left == 0
    assert scenario.wait("deletion", lambda s: s["tasks"] == 10)["problem"] is None
    version = scenario.status()["queue_version"]
    queued = {p.task for p in sdk.predictions.list(project=scenario.number)}
    assert version == "CDAL round 1.2"
    assert not queued & set(gone)
    assert len(queued) == 8


def test_a_project_that_is_deleted_in_the_middle_of_a_round(
    make_scenario: Make, proxy: FaultyLabelStudio, troubled: BackendServer
) -> None:
    doomed = make_scenario(20, server=troubled, connect=False, **SETTINGS)
    connected = threading.Event()

    def delete() -> None:
        connected.wait(PATIENCE)  # Label Studio calls `/setup` more than once
        doomed.project.sdk.projects.delete(id=doomed.number)

    # Other projects' imports go through.
    proxy.expect("POST", f"/projects/{doomed.number}/import/predictions", meanwhile(delete))
    doomed.connect()
    connected.set()
    status = doomed.wait("problem", lambda s: s["problem"])
    assert "404" in status["problem"]
    assert status["queue_version"] is None
    # Other projects go on.
    other = make_scenario(20, server=troubled, **SETTINGS)
    other.wait_for_round(1)
    check_queue(other)
    assert "Traceback" not in troubled.log.read_text()
