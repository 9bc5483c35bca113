"""The JSON API: its answers, its actions, and the document that describes it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from support.offline import (
    add_project,
    add_round,
    add_tasks,
    add_version,
    job_of,
    make_browser,
    services_of,
    write_network,
)

from cdal.backend.reports.events import EventView
from cdal.backend.reports.jobs import JobView
from cdal.backend.reports.project import ProjectsView, ProjectView
from cdal.backend.reports.queue import QueueView
from cdal.backend.store.events import note
from cdal.backend.store.tables import Project, Submission
from cdal.version import VERSION


@pytest.fixture
def browser(tmp_path: Path) -> FlaskClient:
    made = make_browser(tmp_path)
    services = services_of(made)
    project = add_project(services)
    add_tasks(services, project, [1, 2])
    version = add_version(services, project)
    add_round(
        services,
        project,
        [2, 1],
        queued=1,
        model_version_id=version.id,
        queue_version="CDAL round 1.1",
        seconds={"score": 1.5},
    )
    return made


def get(browser: FlaskClient, path: str) -> Any:
    answer = browser.get(f"/api/v1{path}")
    assert answer.status_code == 200, answer.get_json()
    return answer.get_json()


def get_project(browser: FlaskClient) -> Project:
    with services_of(browser).store.reading() as session:
        return session.get_one(Project, 1)


def refused(browser: FlaskClient, method: str, path: str, **options: Any) -> tuple[int, str]:
    answer = browser.open(f"/api/v1{path}", method=method, **options)
    body = answer.get_json()
    assert set(body) == {"error"}
    return answer.status_code, body["error"]


def test_every_field_of_the_answers_is_described(browser: FlaskClient) -> None:
    services_of(browser).jobs.ask(1, "train", "test")
    everything = get(browser, "/projects")
    assert set(everything) == set(ProjectsView.model_fields)
    assert everything["version"] == VERSION
    (project,) = everything["projects"]
    assert project == get(browser, "/projects/1")
    assert set(project) == set(ProjectView.model_fields)
    queue = get(browser, "/projects/1/queue")
    assert set(queue) == set(QueueView.model_fields)
    assert [pick["task"] for pick in queue["picks"]] == [2, 1]
    (job,) = get(browser, "/jobs")["jobs"]
    assert job == get(browser, "/jobs/1") == project["jobs"][0]
    assert set(job) == set(JobView.model_fields)


def test_a_running_job_says_how_long_it_may_still_take(browser: FlaskClient) -> None:
    services = services_of(browser)
    services.jobs.ask(1, "train", "test")
    assert get(browser, "/jobs/1")["seconds_left"] is None
    services.jobs.claim(1)
    assert get(browser, "/jobs/1")["seconds_left"] is None  # nothing is done yet
    services.jobs.report(1, 0.5, "training, epoch 1 of 2")
    job = get(browser, "/jobs/1")
    assert job["message"] == "training, epoch 1 of 2"
    assert 0 <= job["seconds_left"] < 30
    services.jobs.finish(1, "done", outcome="well")
    assert get(browser, "/jobs/1")["seconds_left"] is None


def test_lists_are_the_newest_first_and_can_be_narrowed(browser: FlaskClient) -> None:
    services = services_of(browser)
    other = add_project(services, uid="13.1", label_studio_id=13)
    for project in (1, other.id):
        services.jobs.finish(services.jobs.ask(project, "train", "test"), "failed", error="x")
        services.jobs.ask(project, "sync", "test")
    for path, ids in [
        ("/jobs", [4, 3, 2, 1]),
        ("/jobs?project=2", [4, 3]),
        ("/jobs?state=failed", [3, 1]),
        ("/jobs?state=failed&project=1", [1]),
        ("/jobs?kind=sync", [4, 2]),
        ("/jobs?limit=2", [4, 3]),
        ("/jobs?before=3&limit=1", [2]),
        ("/jobs?project=9", []),
    ]:
        assert [job["id"] for job in get(browser, path)["jobs"]] == ids, path


def test_events(browser: FlaskClient) -> None:
    with services_of(browser).store.transaction() as session:
        note(session, 1, "first")
        note(session, None, "second", "warning")
    events = get(browser, "/events")["events"]
    assert [event["text"] for event in events] == ["second", "first"]
    assert set(events[0]) == set(EventView.model_fields)
    assert [e["text"] for e in get(browser, "/events?level=warning")["events"]] == ["second"]
    assert [e["text"] for e in get(browser, "/events?project=1&before=2")["events"]] == ["first"]


def test_actions(browser: FlaskClient) -> None:
    def post(path: str, body: Any = None) -> Any:
        answer = browser.post(f"/api/v1{path}", json=body)
        assert answer.status_code == 200, answer.get_json()
        return answer.get_json()

    done = {"text": "Job 1 trains on the current labels.", "job": 1}
    assert post("/projects/1/retrain") == done
    assert job_of(services_of(browser), 1).asked_by == "the API"
    assert post("/jobs/1/cancel") == {"text": "Job 1 (train) is cancelled.", "job": 1}
    assert post("/jobs/1/retry")["job"] == 2
    assert "round 1 requested by the API" in post("/projects/1/rescore")["text"]
    assert post("/projects/1/pause")["job"] is None
    assert get(browser, "/projects/1")["paused_at"] is not None
    assert post("/projects/1/resume")["text"].startswith("Project 1 is resumed")
    assert get(browser, "/events")["events"][0]["text"] == "Resumed by the API"


def test_impossible_requests_are_explained(browser: FlaskClient) -> None:
    for method, path, status, sentence in [
        ("GET", "/projects/9", 404, "There is no project 9."),
        ("GET", "/jobs/9", 404, "There is no job 9."),
        ("POST", "/projects/9/retrain", 404, "There is no project 9."),
        ("POST", "/jobs/9/cancel", 404, "There is no job 9."),
        ("POST", "/projects/1/resume", 409, "Project 1 is not paused."),
        ("GET", "/jobs?state=odd", 400, "\"state\" is wrong: input should be 'pending', 'running', "
         "'done', 'failed' or 'cancelled'."),
        ("GET", "/jobs?colour=red", 400, '"colour" is wrong: extra inputs are not permitted.'),
        ("GET", "/jobs?limit=many", 400, '"limit" is wrong: input should be a valid integer, '
         "unable to parse string as an integer."),
    ]:  # fmt: skip
        assert refused(browser, method, path) == (status, sentence)


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({}, 400, '"version" is wrong: field required.'),
        ({"version": "1"}, 400, '"version" is wrong: input should be a valid integer.'),
        ({"version": 1, "more": 1}, 400, '"more" is wrong: extra inputs are not permitted.'),
        ({"version": 1}, 409, "Model version 1 already serves."),
        ({"version": 7}, 404, "There is no model version 7 of project 1."),
    ],
)
def test_rolling_back_requires_a_version(
    browser: FlaskClient, body: Any, status: int, sentence: str
) -> None:
    if status == 409:
        write_network(services_of(browser), get_project(browser), 1)
    found = refused(browser, "POST", "/projects/1/roll-back", json=body)
    assert found == (status, sentence)


def test_numbers_beyond_any_database_are_not_found(browser: FlaskClient) -> None:
    for path in (f"/projects/{10**30}", "/jobs/-1", "/projects/x", "/projects/1.5"):
        assert refused(browser, "GET", path)[0] == 404


def test_the_document_describes_every_endpoint(browser: FlaskClient) -> None:
    document = get(browser, "/openapi.json")
    assert document["openapi"].startswith("3.")
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    not_described = {"/static/<path:filename>", "/metrics", "/api/v1/openapi.json"}
    not_described.add("/api/v1/projects/<int(max=2147483647):number>/pool")  # redirects
    for rule in browser.application.url_map.iter_rules():
        if rule.rule not in not_described:
            if rule.endpoint.startswith("pages."):
                continue
            path = rule.rule.replace("<int(max=2147483647):number>", "{number}").replace(
                "<int(max=2147483647):version>", "{version}"
            )
            method = "POST" if "POST" in (rule.methods or ()) else "GET"
            assert (method, path) in described, rule
    assert "{number}" not in str([m for p in document["paths"].values() for m in p])
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert "200" in operation["responses"]


def test_the_pool_maps_old_path_leads_to_the_new_one(tmp_path: Path) -> None:
    answer = make_browser(tmp_path).get("/api/v1/projects/3/pool")
    assert (answer.status_code, answer.headers["Location"]) == (301, "/api/v1/projects/3/pool-map")


def test_times_of_the_throughput_say_that_they_are_utc(tmp_path: Path) -> None:
    browser = make_browser(tmp_path)
    project = add_project(services_of(browser))
    with services_of(browser).store.transaction() as session:
        at = datetime(2026, 1, 31, 9, 30)
        session.add(
            Submission(project_id=project.id, task_id=1, labelled_at=at, annotators=[7], seconds=2)
        )
    found = browser.get(f"/api/v1/projects/{project.id}/throughput").get_json()
    assert found["annotators"][0]["last"] == "2026-01-31T09:30:00.000Z"
    assert [bar["from"] for bar in found["over_time"]["bars"]] == ["2026-01-31T09:30:00.000Z"]
