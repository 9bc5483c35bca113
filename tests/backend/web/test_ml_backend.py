"""Every endpoint of Label Studio's ML protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from support.offline import (
    CONFIG,
    UID,
    URL,
    add_project,
    add_round,
    add_version,
    choice,
    jobs_of,
    let_sign_in,
    make_browser,
    services_of,
)

from cdal.backend.store.tables import Job
from cdal.backend.web import setup

RESULT = choice("cat")


@pytest.fixture
def browser(tmp_path: Path) -> FlaskClient:
    return make_browser(tmp_path)


@pytest.fixture
def connected(browser: FlaskClient) -> FlaskClient:
    add_project(services_of(browser))
    return browser


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """For calls that change nothing."""
    made = make_browser(tmp_path_factory.mktemp("unused"))
    yield made
    services_of(made).close()


@pytest.mark.parametrize(
    "path",
    ["/setup", "/predict", "/webhook", "/job_status", "/validate", "/delete", "/duplicate_model"],
)
@pytest.mark.parametrize("data", [b"", b"no JSON", b"[1]", b'"text"', b"null", b"\xff\xfe"])
def test_a_body_that_is_not_an_object_is_refused(
    unused: FlaskClient, path: str, data: bytes
) -> None:
    answer = unused.post(path, data=data, content_type="application/json")
    assert answer.status == "400 The request's body must be a JSON object."


def test_health(browser: FlaskClient) -> None:
    answer = browser.get("/health")
    assert answer.status_code == 200
    assert answer.get_json() == {"status": "UP", "model_class": "CDALModel"}
    assert browser.get("/").get_json() == answer.get_json()


def test_setup_answers_with_the_queue_version(
    connected: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_sign_in(monkeypatch)  # whose token may do what is in test_connection.py
    sent = {"project": UID, "schema": CONFIG, "hostname": "", "access_token": ""}
    assert connected.post("/setup", json=sent).get_json() == {"model_version": ""}
    with services_of(connected).store.reading() as session:
        project = setup.find(session, URL, UID)
    assert project is not None
    add_round(services_of(connected), project, [1], queue_version="CDAL round 1.1")
    assert connected.post("/setup", json=sent).get_json() == {"model_version": "CDAL round 1.1"}


@pytest.mark.parametrize("tasks", [None, {}, "x", [1], [{}, None]])
def test_predict_requires_a_list_of_tasks(connected: FlaskClient, tasks: Any) -> None:
    answer = connected.post("/predict", json={"project": UID, "tasks": tasks})
    assert answer.status == '400 The field "tasks" must be a list of tasks.'


@pytest.mark.parametrize("project", [None, 12, "12.1", "", {}])
def test_predict_does_not_say_which_projects_exist(connected: FlaskClient, project: Any) -> None:
    """The answer is the same as for a project with nothing to predict."""
    strange: list[dict[str, Any]] = [{}, {"id": 9}, {"id": 8, "data": {"image": "/etc/passwd"}}]
    expected = connected.post("/predict", json={"project": UID, "tasks": strange})
    answer = connected.post("/predict", json={"project": project, "tasks": strange})
    assert (answer.status, answer.data) == (expected.status, expected.data)
    services = services_of(connected)
    with services.store.reading() as session:
        known = setup.find(session, URL, UID)
    assert known is not None
    version = add_version(services, known, {1: "cat"})
    add_round(services, known, [1], queue_version="CDAL 1.1", model_version_id=version.id)
    expected = connected.post("/predict", json={"project": UID, "tasks": strange})
    assert (answer.status, answer.data) == (expected.status, expected.data)


def test_copies_of_a_label_studio_are_distinguished_by_their_address(
    browser: FlaskClient,
) -> None:
    services = services_of(browser)
    for number, url in enumerate((URL, "http://staging.test"), start=1):
        project = add_project(services, url=url, caller=f"10.0.0.{number}")
        version = add_version(services, project, {7: ("cat", "dog")[number - 1]})
        name = f"CDAL {number}"
        add_round(services, project, [7], queue_version=name, model_version_id=version.id)
    body = {"project": UID, "tasks": [{"id": 7}]}

    def asked_from(address: str) -> str:
        answer = browser.post("/predict", json=body, environ_base={"REMOTE_ADDR": address})
        version: str = answer.get_json()["results"][0]["model_version"]
        return version

    # From elsewhere, the first that was connected: whoever comes later takes nothing away.
    answers = [asked_from(address) for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3")]
    assert answers == ["CDAL 1", "CDAL 2", "CDAL 1"]
    created = "2023-11-14T22:13:20Z"
    event = {"action": "START_TRAINING", "project": {"id": 12, "created_at": created}}
    browser.post("/webhook", json=event, environ_base={"REMOTE_ADDR": "10.0.0.2"})
    with services.store.reading() as session:
        assert [(job.kind, job.project_id) for job in session.query(Job)] == [("train", 2)]


def test_predict_before_the_first_round_has_no_results(connected: FlaskClient) -> None:
    answer = connected.post("/predict", json={"project": UID, "tasks": [{"id": 1}, {"id": 2}]})
    assert answer.get_json() == {"results": [[], []]}


def test_predict_answers_in_order_with_one_result_per_task(browser: FlaskClient) -> None:
    services = services_of(browser)
    project = add_project(services)
    version = add_version(services, project, {1: "cat", 2: "dog"})
    add_round(
        services,
        project,
        [2, 1],
        queue_version="CDAL round 1.1",
        model_version_id=version.id,
    )
    tasks: list[dict[str, Any]] = [{"id": n} for n in (1, 2, 1)]
    answer = browser.post("/predict", json={"project": UID, "tasks": tasks})
    results = answer.get_json()["results"]
    assert [r["result"] for r in results] == [RESULT, choice("dog"), RESULT]
    assert [r["score"] for r in results] == pytest.approx([0.6, 0.3, 0.6])
    assert {r["model_version"] for r in results} == {"CDAL round 1.1"}
    assert browser.post("/predict", json={"project": UID, "tasks": []}).get_json() == {
        "results": []
    }


def test_there_is_nothing_to_add_to_what_somebody_draws(browser: FlaskClient) -> None:
    services = services_of(browser)
    project = add_project(services)
    version = add_version(services, project, {1: "dog"})
    add_round(services, project, [1], queue_version="CDAL 1.1", model_version_id=version.id)
    body = {"tasks": [{"id": 1}], "project": UID, "params": {"context": None}}
    assert browser.post("/predict", json=body).get_json()["results"][0]["result"] == choice("dog")
    body["params"] = {"context": {"result": [{"type": "keypointlabels"}]}}
    assert browser.post("/predict", json=body).get_json() == {"results": [[]]}


def test_predict_in_a_random_round_accepts_any_ids(connected: FlaskClient) -> None:
    """Without a model there is no prediction, but the place in the queue is known."""
    services = services_of(connected)
    with services.store.reading() as session:
        project = setup.find(session, URL, UID)
    assert project is not None
    add_round(services, project, [7], queue_version="CDAL round 1.1")
    ids: list[Any] = [7, 999, None, "7", 7.0, -1, 2**70, [], {}, 7]
    tasks = [{"id": number} for number in ids] + [{}, {"data": {"image": "x"}}]
    answer = connected.post("/predict", json={"project": UID, "tasks": tasks})
    assert answer.status_code == 200
    results = answer.get_json()["results"]
    assert len(results) == len(tasks)
    queued = [row for row, r in enumerate(results) if r]
    assert queued == [0, 9]
    assert [(results[row]["result"], results[row]["score"] < 1) for row in queued] == [
        ([], True),
        ([], True),
    ]


def test_a_webhook_requests_a_job(connected: FlaskClient) -> None:
    sent = {"action": "ANNOTATION_CREATED", "project": {"id": 12}, "annotation": {"id": 5}}
    answer = connected.post("/webhook", json=sent)
    assert answer.get_json() == {"status": "accepted", "job": "1"}
    for _ in range(20):
        assert connected.post("/webhook", json=sent).get_json()["job"] == "1"
    assert jobs_of(services_of(connected)) == [("sync", "pending")]


def test_start_training_requests_a_training(connected: FlaskClient) -> None:
    connected.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 12}})
    assert jobs_of(services_of(connected)) == [("train", "pending")]


@pytest.mark.parametrize("action", [None, 5, "", "annotation created", "A\nB", "X" * 61])
def test_a_webhook_names_an_event(connected: FlaskClient, action: Any) -> None:
    answer = connected.post("/webhook", json={"action": action, "project": {"id": 12}})
    assert answer.status_code == 400
    assert jobs_of(services_of(connected)) == []


@pytest.mark.parametrize("project", [None, 12, {}, {"id": "12"}, {"id": 13}, {"id": 2**70}, []])
def test_a_webhook_of_an_unconnected_project_is_ignored(
    connected: FlaskClient, project: Any
) -> None:
    answer = connected.post("/webhook", json={"action": "ANNOTATION_CREATED", "project": project})
    assert answer.get_json() == {"status": "ignored", "reason": "this project is not connected"}


def test_a_webhook_of_a_namesake_on_another_server_is_ignored(connected: FlaskClient) -> None:
    """Project 12 of 2023-11-14T22:13:20Z is ours; another server also has a project 12."""
    ours = {"id": 12, "created_at": "2023-11-14T22:13:20.123456Z"}
    theirs = {"id": 12, "created_at": "2024-01-01T00:00:00Z"}
    sent = {"action": "TASKS_CREATED", "project": theirs}
    assert connected.post("/webhook", json=sent).get_json()["status"] == "ignored"
    sent["project"] = ours
    assert connected.post("/webhook", json=sent).get_json()["status"] == "accepted"


@pytest.mark.parametrize("created", ["0001-01-01T00:00:00", "9999-12-31T23:59:59", "x", 5, []])
def test_a_webhook_with_a_strange_time_is_only_a_hint(connected: FlaskClient, created: Any) -> None:
    sent = {"action": "TASKS_CREATED", "project": {"id": 12, "created_at": created}}
    assert connected.post("/webhook", json=sent).status_code == 200


def test_a_stored_configuration_that_cannot_be_served_any_more_is_explained(
    browser: FlaskClient,
) -> None:
    """As after an upgrade: a version may refuse what an earlier one has stored."""
    services = services_of(browser)
    project = add_project(services, extra_params={"gone": 1}, queue_version="CDAL 1.1")
    add_round(services, project, [1], queue_version="CDAL 1.1")
    answer = browser.post("/predict", json={"project": UID, "tasks": [{"id": 1}]})
    assert answer.status_code == 400
    assert '"gone"' in answer.get_json()["error"]


def test_versions_are_the_queue_versions_newest_first(connected: FlaskClient) -> None:
    assert connected.get("/versions").get_json() == {"versions": []}
    services = services_of(connected)
    with services.store.reading() as session:
        project = setup.find(session, URL, UID)
    assert project is not None
    for number in (1, 2):
        add_round(services, project, [], number=number, queue_version=f"CDAL round {number}.1")
    add_round(services, project, [], number=3)
    assert connected.get("/versions").get_json() == {
        "versions": ["CDAL round 2.1", "CDAL round 1.1"]
    }


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("pending", "queued"),
        ("running", "started"),
        ("done", "finished"),
        ("failed", "failed"),
        ("cancelled", "canceled"),
    ],
)
def test_job_status(connected: FlaskClient, state: str, told: str) -> None:
    services = services_of(connected)
    job_id = services.jobs.ask(1, "train", "test")
    with services.store.transaction() as session:
        job = session.get_one(Job, job_id)
        job.state, job.progress, job.message = state, 0.5, "training"
    answer = connected.post("/job_status", json={"job": str(job_id)})
    assert answer.status_code == 200
    status = answer.get_json()
    assert (status["job_status"], status["progress"], status["message"]) == (told, 0.5, "training")
    assert status["error"] == ""
    assert status["finished_at"] is None


def test_job_status_says_why_it_failed(connected: FlaskClient) -> None:
    services = services_of(connected)
    services.jobs.ask(1, "train", "test")
    services.jobs.finish(1, "failed", error="No labels.")
    status = connected.post("/job_status", json={"job": "1"}).get_json()
    assert (status["job_status"], status["error"]) == ("failed", "No labels.")
    assert status["finished_at"] > status["created_at"]


@pytest.mark.parametrize("job", [None, "99", "x", "²", "9" * 40, "-1", [], "1" * 5000])
def test_job_status_of_an_unknown_job(connected: FlaskClient, job: Any) -> None:
    answer = connected.post("/job_status", json={"job": job})
    assert answer.status_code == 410
    assert answer.get_json()["error"].startswith("There is no job")


def test_validate(browser: FlaskClient) -> None:
    assert browser.post("/validate", json={"config": CONFIG}).get_json() == {"status": "ok"}
    answer = browser.post("/validate", json={"config": "<View/>"})
    assert answer.status == ("400 The labeling config has no <Image>; this backend labels images.")
    answer = browser.post("/validate", json={"config": 5})
    assert answer.status == '400 The field "config" must be a labeling config.'


@pytest.mark.parametrize("path", ["/delete", "/duplicate_model"])
def test_delete_and_duplicate_change_nothing(connected: FlaskClient, path: str) -> None:
    assert connected.post(path, json={"project": UID}).get_json() == {"status": "ok"}
    assert jobs_of(services_of(connected)) == []


def test_the_api_of_projects(connected: FlaskClient) -> None:
    (project,) = connected.get("/api/v1/projects").get_json()["projects"]
    assert project["label_studio_id"] == 12
    assert connected.get("/api/v1/projects/1").get_json() == project
    assert connected.get("/api/v1/projects/1/queue").get_json() == {
        "round": None,
        "selector": None,
        "picks": [],
    }
    for path in ("/api/v1/projects/2", "/api/v1/projects/2/queue"):
        answer = connected.get(path)
        assert (answer.status_code, answer.get_json()) == (404, {"error": "There is no project 2."})
