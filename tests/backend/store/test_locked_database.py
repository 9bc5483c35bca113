"""Another program locks the database: one sentence, and nothing is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event
from support.offline import UID, add_project, add_round, jobs_of, make_browser, services_of

from cdal.backend.loop.runner import run_job
from cdal.backend.services import Services

SENTENCE = "Another program has locked the database for too long."


def hold(services: Services) -> sqlite3.Connection:
    """Lock the database; others wait 50 ms for it rather than 30 s."""

    @event.listens_for(services.store.engine, "checkout")
    def impatient(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA busy_timeout=50")

    other = sqlite3.connect(services.config.data_folder / "cdal.sqlite")
    other.execute("BEGIN IMMEDIATE")
    return other


def test_requests_are_refused_in_a_sentence_and_reading_goes_on(tmp_path: Path) -> None:
    browser = make_browser(tmp_path)
    services = services_of(browser)
    add_round(services, add_project(services), [7], queue_version="CDAL round 1.1")
    with closing(hold(services)):
        hint = {"action": "ANNOTATION_CREATED", "project": {"id": 12}}
        answer = browser.post("/webhook", json=hint)
        assert (answer.status_code, answer.get_json()) == (503, {"error": SENTENCE})
        answer = browser.post("/predict", json={"project": UID, "tasks": [{"id": 7, "data": {}}]})
        assert answer.status_code == 200
    assert browser.post("/webhook", json=hint).status_code == 200


def test_a_job_that_cannot_begin_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    services = services_of(make_browser(tmp_path))
    add_project(services)
    services.jobs.ask(1, "train", "test")
    with closing(hold(services)):
        run_job(services, 1, lambda: False)
    assert f"Job 1 cannot begin. {SENTENCE}" in caplog.text
    assert "Traceback" not in caplog.text
    assert jobs_of(services) == [("train", "pending")]
