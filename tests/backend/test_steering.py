"""An admin steers a running loop from the command line and the API, as seen in Label Studio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from support.forked import command
from support.held import HeldBackend
from support.processes import PATIENCE, environment

pytestmark = [pytest.mark.label_studio, pytest.mark.data]


def cdal(scenario: Any, *arguments: object) -> str:
    """Run a command on the backend's machine, as an admin would."""
    return command(environment(scenario.backend.data_folder), *arguments)


def post(scenario: Any, path: str) -> Any:
    answer = httpx.post(f"{scenario.backend.url}/api/v1{path}", timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return answer.json()


def set_up(scenario: Any, **settings: Any) -> None:
    """Edit the settings on the project's Model page."""
    scenario.settings |= settings
    scenario.project.sdk.ml.update(
        id=scenario.connection,
        url=scenario.backend.url,
        project=scenario.number,
        extra_params=scenario.settings,
    )


def job(status: dict[str, Any], kind: str, state: str) -> dict[str, Any] | None:
    return next((j for j in status["jobs"] if (j["kind"], j["state"]) == (kind, state)), None)


def followed(scenario: Any) -> str:
    """The queue version that Label Studio's label stream follows."""
    project = scenario.project.sdk.projects.get(id=scenario.number)
    return str(project.model_version)


def test_cancel_pause_resume_and_roll_back(
    make_scenario: Callable[..., Any], held_backend: HeldBackend
) -> None:
    scenario = make_scenario(60, server=held_backend, budget=6, reserve=30, min_labels=4)
    scenario.wait_for_round(1)
    scenario.label_stream(6)
    before = scenario.wait_for_round(2)
    number = before["id"]

    # Another process cancels a training that would not end by itself.
    set_up(scenario, epochs=3)
    queue = scenario.queue()
    with held_backend.trainings.held():
        assert scenario.label_stream(6) == queue[:6]
        assert "of 3" in held_backend.trainings.wait_for_training()
        training = job(scenario.status(), "train", "running")
        assert training is not None
        said = cdal(scenario, "cancel", training["id"])
        assert said == f"Job {training['id']} (train) stops within seconds.\n"
        scenario.wait("cancelled", lambda s: job(s, "train", "cancelled") is not None)
    after = scenario.settle()
    assert (after["serving_version"], len(after["versions"])) == (1, 1)
    assert after["queue_version"] == before["queue_version"] == followed(scenario)

    # While it is paused, labels are noticed, and what is queued is served; nothing begins.
    post(scenario, f"/projects/{number}/pause")
    assert scenario.label_stream(8) == queue[6:14]
    scenario.wait("the labels", lambda s: s["labelled"] == 20)
    paused = scenario.settle()
    assert paused["paused_at"] is not None
    assert len(paused["rounds"]) == 2
    assert "paused since" in cdal(scenario, "status")
    post(scenario, f"/projects/{number}/resume")
    status = scenario.wait_for_round(3)
    assert len(status["versions"]) == 2

    # An older version serves again, with an order of its own.
    said = cdal(scenario, "rollback", number, 1 if status["serving_version"] == 2 else 2)
    assert "a new order of round 3 starts with it" in said
    status = scenario.wait("a refreshed order", lambda s: s["rounds"][-1]["refreshes"] == 1)
    newest = status["rounds"][-1]
    assert newest["version"] == status["serving_version"]
    scenario.settle()
    assert followed(scenario) == newest["queue_version"]
    queue = scenario.queue()
    assert scenario.label_stream(2) == queue[:2]
