"""Who may ask, how much at once, and what every answer forbids the browser."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from support.offline import add_project, basic, jobs_of, make_browser, services_of
from support.processes import PATIENCE

from cdal.backend.web import security
from cdal.backend.web.security import HEADERS


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    return make_browser(tmp_path_factory.mktemp("open"))


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    return make_browser(
        tmp_path_factory.mktemp("locked"), BASIC_AUTH_USER="ann", BASIC_AUTH_PASS="pass:wörd"
    )


def endpoints(browser: FlaskClient) -> Iterator[tuple[str, str]]:
    """Method and path of everything that is answered, with numbers and names filled in."""
    yield "GET", "/no/such/page"
    for rule in browser.application.url_map.iter_rules():
        path = re.sub("<int[^>]*>", "1", rule.rule)
        path = re.sub("<[^>]*>", "x", path)
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            yield method, path


def test_with_a_password_set_all_but_health_is_closed(locked: FlaskClient) -> None:
    wrong = ({}, basic("ann", "wrong"), basic("bob", "pass:wörd"), {"Authorization": "x"})
    seen = set()
    for method, path in endpoints(locked):
        if path in ("/health", "/webhook"):
            continue
        seen.add(path)
        for headers in wrong:
            answer = locked.open(path, method=method, json={}, headers=headers)
            assert answer.status == "401 Unauthorized", path
            assert answer.headers["WWW-Authenticate"] == 'Basic realm="CDAL"'
        answer = locked.open(path, method=method, json={}, headers=basic("ann", "pass:wörd"))
        assert answer.status_code != 401, path
    assert {"/", "/setup", "/predict", "/metrics", "/api/v1/projects", "/static/x"} <= seen


def test_health_is_open(locked: FlaskClient) -> None:
    assert locked.get("/health").status_code == 200


def test_hints_need_no_password_and_start_training_does(locked: FlaskClient) -> None:
    """Label Studio's own webhook carries no password."""
    event = {"action": "ANNOTATION_CREATED", "project": {"id": 12}}
    assert locked.post("/webhook", json=event).status_code == 200
    event["action"] = "START_TRAINING"
    assert locked.post("/webhook", json=event).status_code == 401
    assert locked.post("/webhook", data="no JSON").status_code == 401
    assert locked.post("/webhook", json=event, headers=basic("ann", "pass:wörd")).status_code == 200


def test_without_a_password_all_is_open(browser: FlaskClient) -> None:
    assert browser.get("/versions").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "http://localhost:81"},
        {"Origin": "null"},
        {"Origin": "http://["},
    ],
)
def test_pages_of_other_sites_change_nothing(tmp_path: Path, headers: dict[str, str]) -> None:
    browser = make_browser(tmp_path)
    add_project(services_of(browser))
    for method, path in endpoints(browser):
        if method == "GET":
            continue
        answer = browser.open(path, method=method, json={}, headers=headers)
        assert answer.status == "403 Forbidden", path
        assert "another site's page" in answer.get_json()["error"]
    assert jobs_of(services_of(browser)) == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://public.test"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
    ],
)
def test_pages_of_our_own_and_programs_may(browser: FlaskClient, headers: dict[str, str]) -> None:
    answer = browser.post("/api/v1/jobs/1/cancel", headers=headers)
    assert answer.get_json() == {"error": "There is no job 1."}


def test_every_answer_bears_the_headers(browser: FlaskClient, locked: FlaskClient) -> None:
    for answer in (
        browser.get("/health"),
        browser.get("/none"),
        browser.post("/setup", json={}),
        browser.get("/metrics"),
        locked.get("/"),
        browser.post("/predict", headers={"Origin": "https://evil.test"}),
    ):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert answer.headers["Cache-Control"] == "no-store"
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/predict", 128 * 2**20),
        ("/webhook", 32 * 2**20),
        ("/setup", 4 * 2**20),
        ("/validate", 4 * 2**20),
        ("/job_status", 2**20),
        ("/api/v1/projects/1/roll-back", 2**20),
    ],
)
def test_a_body_that_is_too_large_is_refused_unread(
    browser: FlaskClient, path: str, most: int
) -> None:
    answer = browser.post(
        path,
        json={},
        environ_overrides={"CONTENT_LENGTH": str(most + 1)},
    )
    assert answer.status_code == 413
    assert set(answer.get_json()) == {"error"}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"tasks":' * 5000 + b"1" + b"}" * 5000,
        b'{"project": "\\ud800", "tasks": []}',
        b'{"project": NaN}',
        b'{"project": 1' + b"0" * 5000 + b"}",
        b'{"project": "x"',
        b"\xff\xfe",
        b"",
        b"null",
    ],
    ids=range(9),
)
@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook", "/api/v1/projects/1/roll-back"])
def test_json_that_is_none_or_too_deep_is_refused(
    browser: FlaskClient, path: str, body: bytes
) -> None:
    answer = browser.post(path, data=body, content_type="application/json")
    assert answer.status_code == 400
    assert set(answer.get_json()) == {"error"}


def test_pairs_of_surrogates_are_characters(browser: FlaskClient) -> None:
    body = b'{"project": "\\ud83d\\ude00", "tasks": []}'
    answer = browser.post("/predict", data=body, content_type="application/json")
    assert answer.get_json()["error"].startswith("This project is not connected")


def test_large_bodies_are_read_one_at_a_time(
    browser: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "BIG_BODY_BYTES", 100)
    body = {"project": "x", "tasks": [], "padding": "x" * 200}
    for _ in range(3):  # each gives way to the next
        assert browser.post("/predict", json=body).status_code == 400
    with waiting_for(security._big_body[False], browser, json=body):
        assert browser.post("/predict", json={}).status_code == 400  # small ones do not wait


@contextmanager
def waiting_for(
    turn: threading.Semaphore, browser: FlaskClient, path: str = "/predict", **request: Any
) -> Iterator[None]:
    """Meanwhile a request waits for its turn, and is answered afterwards."""
    turn.acquire()
    answered = threading.Event()

    def send() -> None:
        browser.application.test_client().post(path, **request)
        answered.set()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        assert not answered.wait(0.3)
        yield
    finally:
        turn.release()
        thread.join(PATIENCE)
    assert answered.is_set()


def test_bodies_that_do_not_say_how_large_they_are_count_as_large(browser: FlaskClient) -> None:
    chunked = {"Transfer-Encoding": "chunked"}
    with waiting_for(security._big_body[False], browser, json={}, headers=chunked):
        pass


def test_without_the_password_a_large_event_waits_before_it_is_read(
    locked: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "BIG_BODY_BYTES", 100)
    event = {"action": "START_TRAINING", "padding": "x" * 200}
    body = BytesIO(json.dumps(event).encode())
    ann = basic("ann", "pass:wörd")
    with waiting_for(
        security._big_body[False],
        locked,
        "/webhook",
        input_stream=body,
        content_length=len(body.getvalue()),
        content_type="application/json",
    ):
        assert body.tell() == 0
        # It holds up nobody who has the password.
        assert locked.post("/predict", json=event, headers=ann).status_code == 400
    assert locked.post("/webhook", json=event).status_code == 401
    assert locked.post("/predict", json=event).status_code == 401
    # Each has given way to the next.
    assert locked.post("/webhook", json=event, headers=ann).status_code == 200
