"""Whose events are heard: offline, and with Label Studio's own webhook."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask.testing import FlaskClient
from support.offline import add_project, basic, jobs_of, make_browser, services_of
from support.processes import PATIENCE, wait_until

from cdal.backend.label_studio.webhook import HEADER, REFUSED, make_secret
from cdal.backend.services import Services
from cdal.backend.store.tables import Job

CREATED = "2023-11-14T22:13:20.123456Z"  # as Label Studio has it of 12.1700000000


def event(action: str = "ANNOTATION_CREATED") -> dict[str, Any]:
    return {"action": action, "project": {"id": 12, "created_at": CREATED}}


@pytest.fixture
def browser(tmp_path: Path) -> FlaskClient:
    made = make_browser(tmp_path, BASIC_AUTH_USER="ann", BASIC_AUTH_PASS="pass-word")
    add_project(services_of(made), webhook_secret="the-secret")
    return made


@pytest.mark.parametrize("headers", [{}, {HEADER: ""}, {HEADER: "wrong"}, {HEADER: "the-secret-"}])
def test_once_the_webhook_bears_a_secret_others_are_refused(
    browser: FlaskClient, headers: dict[str, str]
) -> None:
    answer = browser.post("/webhook", json=event(), headers=headers)
    assert answer.status_code == 401
    assert "does not come from the project's webhook" in answer.get_json()["error"]


def test_strangers_rarely_start_a_look_at_the_webhook(browser: FlaskClient) -> None:
    services = services_of(browser)
    began = time.monotonic()
    looks = 0
    for _ in range(30):
        assert browser.post("/webhook", json=event()).status_code == 401
        looks += finish_all(services)
    assert 1 <= looks <= 1 + (time.monotonic() - began) / 10 + 1
    with services.store.reading() as session:
        assert {job.asked_by for job in session.query(Job)} == {REFUSED}


def test_strangers_hold_up_nobody(browser: FlaskClient) -> None:
    """A label waited for the look that they may start ten seconds after the one before."""
    services = services_of(browser)
    for _ in range(3):
        browser.post("/webhook", json=event())
        finish_all(services)
    browser.post("/webhook", json=event(), headers={HEADER: "the-secret"})
    assert finish_all(services) == 1


def test_with_the_secret_or_the_password_it_is_heard(browser: FlaskClient) -> None:
    for headers in ({HEADER: "the-secret"}, basic("ann", "pass-word")):
        answer = browser.post("/webhook", json=event(), headers=headers)
        assert answer.get_json() == {"status": "accepted", "job": "1"}
    assert jobs_of(services_of(browser)) == [("sync", "pending")]


def test_an_event_without_content_is_of_the_project_that_its_secret_names(tmp_path: Path) -> None:
    browser = make_browser(tmp_path)
    services = services_of(browser)
    for number in (1, 2):
        add_project(services, uid=f"12.17000000{number:02}", webhook_secret=f"{number}.secret")
    bare = {"action": "ANNOTATION_CREATED"}
    answer = browser.post("/webhook", json=bare, headers={HEADER: "2.secret"})
    assert answer.get_json()["status"] == "accepted"
    for header in ("1.wrong", "2.secret-"):
        answer = browser.post("/webhook", json=bare, headers={HEADER: header})
        assert answer.status_code == 401, header
    for header in ("3.secret", "secret", ".secret", "9" * 30 + ".secret", ""):
        answer = browser.post("/webhook", json=bare, headers={HEADER: header})
        assert answer.get_json()["status"] == "ignored", header
    with services.store.reading() as session:
        asked = {job.project_id: job.asked_by for job in session.query(Job)}
    assert asked == {1: REFUSED, 2: "ANNOTATION_CREATED"}


def test_the_secret_starts_no_training(browser: FlaskClient) -> None:
    answer = browser.post("/webhook", json=event("START_TRAINING"), headers={HEADER: "the-secret"})
    assert answer.status_code == 401
    assert jobs_of(services_of(browser)) == []


def test_events_are_heard_until_label_studio_has_the_secret(tmp_path: Path) -> None:
    browser = make_browser(tmp_path)
    add_project(services_of(browser), webhook_secret="the-secret", webhook_guarded_at=None)
    assert browser.post("/webhook", json=event()).status_code == 200


def test_the_secret_is_for_one_project(browser: FlaskClient) -> None:
    """Another server's project of the same number has one of its own."""
    services = services_of(browser)
    add_project(services, uid="12.1800000000", webhook_secret="another")
    unknown = {"action": "ANNOTATION_CREATED", "project": {"id": 12}}
    browser.post("/webhook", json=unknown, headers={HEADER: "another"})
    with services.store.reading() as session:
        asked = {job.project_id: job.asked_by for job in session.query(Job)}
    assert asked == {1: REFUSED, 2: "ANNOTATION_CREATED"}


def test_events_of_projects_that_label_studio_does_not_list_start_no_training(
    tmp_path: Path,
) -> None:
    browser = make_browser(tmp_path)
    add_project(services_of(browser), connected_at=None)
    browser.post("/webhook", json=event("START_TRAINING"))
    assert jobs_of(services_of(browser)) == [("sync", "pending")]


def finish_all(services: Services) -> int:
    """Finish the jobs that may begin now; returns how many there were."""
    with services.store.reading() as session:
        waiting = [job.id for job in session.query(Job).filter_by(state="pending")]
    claimed = [job_id for job_id in waiting if services.jobs.claim(job_id)]
    for job_id in claimed:
        services.jobs.finish(job_id, "done")
    return len(claimed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "at_once", "each_s"), [("ANNOTATION_CREATED", 120, 0.5), ("START_TRAINING", 3, 60.0)]
)
def test_a_flood_of_events_makes_no_flood_of_work(
    tmp_path: Path, action: str, at_once: int, each_s: float
) -> None:
    browser = make_browser(tmp_path)
    services = services_of(browser)
    add_project(services)
    began = time.monotonic()
    done = 0
    for _ in range(3 * at_once):  # each comes when the one before has been done, if it may be
        assert browser.post("/webhook", json=event(action)).status_code == 200
        done += finish_all(services)
    assert at_once <= done <= at_once + (time.monotonic() - began) / each_s + 1
    with services.store.reading() as session:
        (waiting,) = session.query(Job).filter_by(state="pending")
        assert waiting.not_before is not None


def test_secrets_differ_and_go_into_a_header() -> None:
    found = {make_secret(7) for _ in range(100)}
    assert len(found) == 100
    assert all(len(secret) >= 43 and secret.isascii() and secret.isprintable() for secret in found)


@pytest.mark.label_studio
def test_label_studios_own_webhook_bears_the_secret_and_others_are_refused(
    make_scenario: Callable[..., Any], start_backend: Callable[..., Any]
) -> None:
    server = start_backend(
        BASIC_AUTH_USER="ann",
        BASIC_AUTH_PASS="pass-word",
        CDAL_LOG_FORMAT="json",
        LOG_LEVEL="DEBUG",
    )
    scenario = make_scenario(40, server=server, connect=False, budget=5)
    webhooks = scenario.project.sdk.webhooks
    scenario.connect()
    scenario.wait_for_round(1)

    (webhook,) = webhooks.list(project=str(scenario.number))
    secret = webhook.headers[HEADER]
    assert len(secret) >= 43
    assert webhook.send_payload is False
    hint = {"action": "ANNOTATION_UPDATED", "project": {"id": scenario.number}}
    refused = httpx.post(f"{server.url}/webhook", json=hint, timeout=PATIENCE)
    assert refused.status_code == 401
    heard = httpx.post(
        f"{server.url}/webhook", json=hint, headers={HEADER: secret}, timeout=PATIENCE
    )
    assert heard.status_code == 200

    def begun(asked_by: str) -> int:
        """How many jobs have begun for this; those of the record may be few."""
        return server.log.read_text().count(f"begins, {asked_by}")

    # Label Studio's own events are heard, unless the minute's poll comes before.
    tasks = iter(scenario.queue())
    scenario.label([next(tasks) for _ in range(3)])
    scenario.wait("3 labels", lambda status: status["labelled"] == 3)
    scenario.settle()
    while not begun("ANNOTATION_CREATED"):
        scenario.label([next(tasks)])
        scenario.settle()

    def is_set_again(_: dict[str, Any]) -> bool:
        (now,) = webhooks.list(project=str(scenario.number))
        return now.headers == {"X-Other": "kept", HEADER: secret} and now.send_payload is False

    # Somebody takes the header away: the next event, which tells its project, is refused, and has
    # it set again. It is done again where the minute's poll came before the event.
    for task in tasks:
        before = begun(REFUSED)
        webhooks.update(
            id=webhook.id, url=webhook.url, headers={"X-Other": "kept"}, send_payload=True
        )
        scenario.label([task])
        scenario.wait("the header", is_set_again)
        if begun(REFUSED) > before:
            break
    else:
        pytest.fail("no event was refused")

    # What was logged meanwhile, at its most talkative: an object a line, and none of the secrets.
    ready = f"{server.url}/ready"  # Label Studio has two seconds to answer it
    wait_until("readiness", lambda: httpx.get(ready, auth=server.password).status_code == 200)
    text = server.log.read_text()
    for hidden in (secret, "pass-word", scenario.label_studio.token):
        assert hidden not in text
    lines = [json.loads(line) for line in text.splitlines()]
    done = [line for line in lines if line["logger"] == "cdal.backend.loop.runner"]
    assert any(line["project"] == 1 and line["round"] == 1 and line["job"] for line in done)
    assert any(line["logger"] == "gunicorn.error" for line in lines)
