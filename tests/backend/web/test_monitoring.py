"""Prometheus metrics, read back by Prometheus's own parser."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from support.offline import (
    add_project,
    add_round,
    add_tasks,
    add_version,
    make_browser,
    services_of,
)

from cdal.backend.actions import pause
from cdal.backend.store.tables import Job, Worker, now

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(browser: FlaskClient) -> Samples:
    answer = browser.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.get_data(as_text=True))
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


@pytest.fixture
def browser(tmp_path: Path) -> FlaskClient:
    return make_browser(tmp_path)


def test_nothing_connected(browser: FlaskClient) -> None:
    found = scrape(browser)
    assert {name for name, _ in found} == {
        "cdal_disk_free_bytes",
        "cdal_worker_up",
        "cdal_workers",
        "cdal_oldest_waiting_job_seconds",
    }
    assert value(found, "cdal_worker_up") == 0
    assert value(found, "cdal_disk_free_bytes") > 0


def test_what_the_store_knows(browser: FlaskClient) -> None:
    services = services_of(browser)
    project = add_project(services)
    add_tasks(services, project, [1, 2, 3])
    add_tasks(services, project, [4], annotations=1)
    version = add_version(services, project)
    add_round(services, project, [1], number=1)
    add_round(services, project, [2], number=2, model_version_id=version.id, seconds={"score": 2.5})
    services.jobs.ask(project.id, "sync", "test")
    services.jobs.finish(services.jobs.ask(project.id, "train", "test"), "failed", error="x")
    found = scrape(browser)
    assert value(found, "cdal_jobs", kind="sync", state="pending") == 1
    assert value(found, "cdal_jobs", kind="train", state="failed") == 1
    assert value(found, "cdal_jobs_failed_last_day", project="1", kind="train") == 1
    assert value(found, "cdal_images", project="1", state="unusable") == 0
    assert value(found, "cdal_serving_version", project="1") == 1
    assert value(found, "cdal_project_problem", project="1") == 0
    assert value(found, "cdal_project_paused", project="1") == 0
    assert value(found, "cdal_label_studio_errors_total", project="1") == 0
    assert ("cdal_last_look_age_seconds", (("project", "1"),)) not in found
    assert value(found, "cdal_images", project="1", state="labelled") == 1
    assert value(found, "cdal_images", project="1", state="unlabelled") == 3
    assert value(found, "cdal_round", project="1") == 2
    assert value(found, "cdal_model_metric", project="1", metric="accuracy") == 0.75
    assert value(found, "cdal_round_seconds", project="1", step="score") == 2.5


def test_a_model_that_was_never_measured_has_no_metric(browser: FlaskClient) -> None:
    services = services_of(browser)
    version = add_version(services, add_project(services))
    with services.store.transaction() as session:
        session.merge(version).metrics = {}
    assert "cdal_model_metric" not in {name for name, _ in scrape(browser)}


def test_requests_are_counted_by_rule_method_and_status(browser: FlaskClient) -> None:
    browser.get("/health")
    browser.get("/health")
    browser.post("/setup", json={})
    found = scrape(browser)
    count = "cdal_request_seconds_count"
    assert value(found, count, path="/health", method="GET", status="200") == 2
    assert value(found, count, path="/setup", method="POST", status="400") == 1


def test_callers_cannot_create_endless_series(browser: FlaskClient) -> None:
    for number in range(20):
        browser.get(f"/none/{number}")
        browser.open("/health", method=f"METHOD{number}")
        browser.get(f"/api/v1/projects/{number}")
    counts = [key for key in scrape(browser) if key[0] == "cdal_request_seconds_count"]
    assert len(counts) == 3


def test_what_an_operator_alerts_on(browser: FlaskClient) -> None:
    services = services_of(browser)
    project = add_project(services, problem="Label Studio is away.", label_studio_errors=7)
    pause(services, project.id, "test")
    services.jobs.finish(services.jobs.ask(project.id, "sync", "test"), "done")
    services.jobs.ask(project.id, "train", "test")
    behind = services.jobs.ask(project.id, "score", "test")
    with services.store.transaction() as session:
        for job in session.query(Job).filter_by(state="pending"):
            job.created_at -= timedelta(seconds=100 if job.id == behind else 50)
        session.add(
            Worker(
                id=1,
                host="h",
                machine="m",
                folder="f",
                pid=1,
                started_at=now(),
                seen_at=now() - timedelta(seconds=90),
            )
        )
    found = scrape(browser)
    assert value(found, "cdal_worker_up") == 0
    assert 90 <= value(found, "cdal_worker_heartbeat_age_seconds") < 100
    assert 100 <= value(found, "cdal_oldest_waiting_job_seconds") < 110
    assert value(found, "cdal_project_problem", project="1") == 1
    assert value(found, "cdal_project_paused", project="1") == 1
    assert value(found, "cdal_label_studio_errors_total", project="1") == 7
    assert 0 <= value(found, "cdal_last_look_age_seconds", project="1") < 10


def test_a_job_that_waits_its_turn_is_not_overdue(browser: FlaskClient) -> None:
    services = services_of(browser)
    project = add_project(services)
    services.jobs.claim(services.jobs.ask(project.id, "train", "test"))
    services.jobs.ask(project.id, "train", "test")
    with services.store.transaction() as session:
        for job in session.query(Job):
            job.created_at -= timedelta(hours=5)
    assert value(scrape(browser), "cdal_oldest_waiting_job_seconds") == 0
