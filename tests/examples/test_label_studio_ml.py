"""The adapter for label-studio-ml; tests/backend/test_adapter.py connects a real Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from flask import Flask
from sqlalchemy import select
from support.label_studio_ml import FOLDER, load_adapter
from support.offline import CONFIG, UID, URL, add_round, let_sign_in, make_services

from cdal.backend.config import server_config
from cdal.backend.errors import RefusedError
from cdal.backend.store.tables import Job, Project

PROJECT = {
    "id": 12,
    "label_config": CONFIG,
    "created_at": datetime.fromtimestamp(int(UID.split(".")[1]), UTC).isoformat(),
}


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    make_services(tmp_path).store.close()
    let_sign_in(monkeypatch)
    module = load_adapter(monkeypatch, tmp_path, URL, "the-servers-key")
    yield module
    module.SERVICES.store.close()
    server_config.cache_clear()


def model(adapter: ModuleType, path: str, body: dict[str, Any]) -> Any:
    with Flask("test").test_request_context(path, json=body):
        return adapter.CDALModel(project_id="12", label_config=CONFIG)


def connect(adapter: ModuleType, **changes: Any) -> Any:
    sent = {"project": UID, "schema": CONFIG, "hostname": "", "access_token": ""}
    return model(adapter, "/setup", {**sent, **changes})


def connect_guarded(adapter: ModuleType, secret: str) -> None:
    """Connect a project whose webhook carries a secret."""
    connected = connect(adapter)
    with adapter.SERVICES.store.transaction() as session:
        project = session.get_one(Project, connected.model.project.id)
        project.connected_at = project.webhook_guarded_at = datetime.now(UTC)
        project.webhook_secret = secret


def test_a_project_is_connected_with_its_settings(adapter: ModuleType) -> None:
    assert connect(adapter, extra_params='{"budget": 5}').get("model_version") == ""
    with adapter.SERVICES.store.reading() as session:
        project = session.scalars(select(Project)).one()
    assert (project.uid, project.extra_params) == (UID, '{"budget": 5}')
    with pytest.raises(RefusedError, match="nonsense"):
        connect(adapter, extra_params='{"nonsense": 1}')


def test_predictions_are_the_backends(adapter: ModuleType) -> None:
    tasks = [{"id": 1}, {"id": 3}, {"id": 2}]
    body = {"project": UID, "tasks": tasks}
    assert model(adapter, "/predict", body).predict(tasks) == [[], [], []]
    connected = connect(adapter)
    services = adapter.SERVICES
    add_round(services, connected.model.project, [2, 1], queue_version="CDAL 1.1")
    found = model(adapter, "/predict", body)
    assert found.get("model_version") == "CDAL 1.1"
    first, none, second = found.predict(tasks, context={}, hostname="")
    assert none == []
    assert first["score"] > second["score"] > 0  # task 2 comes first
    assert first["model_version"] == "CDAL 1.1"
    assert found.predict(tasks, context={"result": []}) == [[], [], []]


def test_events_request_jobs_if_they_come_from_the_webhook(adapter: ModuleType) -> None:
    connect_guarded(adapter, "secret")

    def kinds() -> list[str]:
        with adapter.SERVICES.store.reading() as session:
            return list(session.scalars(select(Job.kind)))

    with Flask("test").test_request_context("/webhook", json={"project": PROJECT}):
        heard = adapter.CDALModel(project_id="12", label_config=CONFIG)
        assert "webhook" in heard.fit("ANNOTATION_CREATED", {})
        assert "train" not in kinds()
        assert heard.fit("START_TRAINING", {}).startswith("job")
        with pytest.raises(RefusedError, match="must name an event"):
            heard.fit("START_TRAINING\n", {})
    assert "train" in kinds()


def test_an_event_whose_project_has_no_time_is_of_no_project(adapter: ModuleType) -> None:
    connect(adapter)
    for created_at in (None, "today"):
        event = {"project": {**PROJECT, "created_at": created_at}}
        with Flask("test").test_request_context("/webhook", json=event):
            unknown = adapter.CDALModel(project_id="12", label_config=CONFIG)
        assert unknown.fit("START_TRAINING", {}) == "this project is not connected"


def test_an_event_without_content_is_heard_by_its_secret(adapter: ModuleType) -> None:
    """label-studio-ml's own server would fail on it."""
    connect_guarded(adapter, "1.secret")

    def heard(path: str, body: dict[str, Any], header: str) -> Any:
        headers = {"X-CDAL-Webhook": header}
        with Flask("test").test_request_context(path, json=body, headers=headers):
            return adapter.hear_event()

    event = {"action": "ANNOTATION_CREATED"}
    assert heard("/webhook", event, "1.wrong")[1] == 401
    assert heard("/webhook", event, "2.secret")[1] == 401
    for action in ("the minute's poll", "A" * 1000, None):
        assert heard("/webhook", {"action": action}, "1.secret")[1] == 400
    text, status = heard("/webhook", event, "1.secret")
    assert (text.startswith("job"), status) == (True, 200)
    assert heard("/webhook", {**event, "project": PROJECT}, "1.secret") is None
    assert heard("/setup", event, "1.secret") is None


def test_the_layout_is_that_of_label_studios_examples() -> None:
    names = {file.name for file in FOLDER.iterdir() if file.is_file()}
    assert {"model.py", "_wsgi.py", "docker-compose.yml", "requirements.txt", "README.md"} <= names
    text = (FOLDER / "docker-compose.yml").read_text().replace("!reset ", "")
    services = yaml.safe_load(text)["services"]
    assert services["worker"]["command"] == ["cdal", "worker"]
    assert services["worker"]["volumes"] == services["ml-backend"]["volumes"]
