"""Who may send requests, how large they may be, and what every answer forbids the browser."""

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
from flask import g
from flask.testing import FlaskClient
from support.offline import (
    CONFIG,
    UID,
    add_project,
    basic,
    jobs_of,
    let_sign_in,
    make_browser,
    services_of,
)
from support.processes import PATIENCE

from cdal.backend.web import hosts, security
from cdal.backend.web.request import asked_by
from cdal.backend.web.security import HEADERS


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    made = make_browser(tmp_path_factory.mktemp("open"))
    yield made
    services_of(made).close()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    made = make_browser(
        tmp_path_factory.mktemp("locked"), BASIC_AUTH_USER="ann", BASIC_AUTH_PASS="pass:wörd"
    )
    yield made
    services_of(made).close()


def endpoints(browser: FlaskClient) -> Iterator[tuple[str, str]]:
    """Method and path of every endpoint, with numbers and names filled in."""
    yield "GET", "/no/such/page"
    for rule in browser.application.url_map.iter_rules():
        path = re.sub("<int[^>]*>", "1", rule.rule)
        path = re.sub("<[^>]*>", "x", path)
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            yield method, path


def test_with_a_password_only_health_is_open(locked: FlaskClient) -> None:
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
    """Label Studio's own webhook has no password."""
    event = {"action": "ANNOTATION_CREATED", "project": {"id": 12}}
    assert locked.post("/webhook", json=event).status_code == 200
    event["action"] = "START_TRAINING"
    assert locked.post("/webhook", json=event).status_code == 401
    assert locked.post("/webhook", data="no JSON").status_code == 401
    assert locked.post("/webhook", json=event, headers=basic("ann", "pass:wörd")).status_code == 200


def test_without_a_password_everything_is_open(browser: FlaskClient) -> None:
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


def test_every_answer_has_the_headers(browser: FlaskClient, locked: FlaskClient) -> None:
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
        '{"project": "\\ud800", "tasks": [], "action": "A"}'.encode("utf-16"),
        '{"project": {}, "tasks": [], "action": "A"}'.encode("utf-32"),
    ],
    ids=range(11),
)
@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook", "/api/v1/projects/1/roll-back"])
def test_invalid_or_too_deep_json_is_refused(browser: FlaskClient, path: str, body: bytes) -> None:
    answer = browser.post(path, data=body, content_type="application/json")
    assert answer.status_code == 400
    assert set(answer.get_json()) == {"error"}


def test_a_user_name_is_one_line_in_records(browser: FlaskClient) -> None:
    with browser.application.test_request_context("/", auth=("an\x1b[31mn\r\n{x}", "p")):
        g.has_password = True
        assert asked_by() == "an [31mn {x}"


def test_pairs_of_surrogates_are_characters(browser: FlaskClient) -> None:
    body = b'{"project": "\\ud83d\\ude00", "tasks": []}'
    answer = browser.post("/predict", data=body, content_type="application/json")
    assert answer.get_json() == {"results": []}


def test_large_bodies_are_read_one_at_a_time(
    browser: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "BIG_BODY_BYTES", 100)
    body = {"project": "x", "tasks": [], "padding": "x" * 200}
    for _ in range(3):  # each gives way to the next
        assert browser.post("/predict", json=body).status_code == 200
    with waiting_for(security._big_body[False, False], browser, json=body):
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


def test_bodies_without_a_length_count_as_large(browser: FlaskClient) -> None:
    chunked = {"Transfer-Encoding": "chunked"}
    with waiting_for(security._big_body[False, False], browser, json={}, headers=chunked):
        pass


def test_without_the_password_a_large_event_waits_before_it_is_read(
    locked: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "BIG_BODY_BYTES", 100)
    event = {"action": "START_TRAINING", "padding": "x" * 200}
    body = BytesIO(json.dumps(event).encode())
    ann = basic("ann", "pass:wörd")
    with waiting_for(
        security._big_body[False, True],
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


# --- DNS rebinding


def rebound(host: str = "evil.test:9090") -> dict[str, str]:
    """What a browser sends for a page whose name has come to mean this machine."""
    return {"Host": host, "Origin": f"http://{host}"}


def test_a_page_whose_name_leads_here_gets_nothing(tmp_path: Path) -> None:
    browser = make_browser(tmp_path)
    add_project(services_of(browser))
    for method, path in endpoints(browser):
        if path == "/health":
            continue
        headers = rebound() if method != "GET" else {"Host": "evil.test:9090"}
        answer = browser.open(path, method=method, json={}, headers=headers)
        assert answer.status == "403 Forbidden", path
        assert "CDAL_ALLOWED_HOSTS" in answer.get_json()["error"]
    assert jobs_of(services_of(browser)) == []


@pytest.mark.parametrize(
    "host",
    ["localhost:9090", "LOCALHOST", "x.localhost", "127.0.0.1:9090", "[::1]:9090", "10.1.2.3",
     "gpu1:9090", "GPU1.lab.example.", "gpu1.local", "gpu1.fqdn.example", "cdal.example"],
)  # fmt: skip
def test_by_its_own_names_and_addresses_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "gpu1.lab.example")
    monkeypatch.setattr("socket.getfqdn", lambda: "gpu1.fqdn.example")
    hosts._names_of_this_machine.cache_clear()
    browser = make_browser(tmp_path, allowed_hosts="cdal.example, other.example")
    assert browser.get("/api/v1/projects", headers={"Host": host}).status_code == 200
    answer = browser.post("/api/v1/jobs/1/cancel", headers=rebound(host))
    assert answer.get_json() == {"error": "There is no job 1."}
    hosts._names_of_this_machine.cache_clear()


@pytest.mark.parametrize(
    "host", ["localhost.evil.test", "evil.test", "127.0.0.1.evil.test", "0x7f.1", "cdal.example.x"]
)
def test_names_that_only_look_like_its_own(tmp_path: Path, host: str) -> None:
    browser = make_browser(tmp_path, allowed_hosts="cdal.example")
    assert browser.get("/api/v1/projects", headers={"Host": host}).status_code == 403


def test_the_name_by_which_label_studio_connects_is_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = make_browser(tmp_path)
    let_sign_in(monkeypatch)
    body = {"project": UID, "schema": CONFIG, "hostname": "", "access_token": ""}
    web = {"Host": "web:9090"}
    assert browser.get("/versions", headers=web).status_code == 403
    assert browser.get("/health", headers=web).status_code == 200
    # A page cannot teach it a name: browsers say where a POST comes from.
    for mark in ({"Origin": "http://web:9090"}, {"Sec-Fetch-Site": "same-origin"}):
        assert browser.post("/setup", json=body, headers={**web, **mark}).status_code == 403
    assert browser.post("/setup", json=body, headers=web).status_code == 200
    assert browser.get("/versions", headers=web).status_code == 200


@pytest.mark.parametrize(
    ("allowed", "status"), [(None, 200), ("cdal.example", 403), ("*", 200), ("evil.test", 200)]
)
def test_with_a_password_any_name_will_do_unless_they_are_listed(
    tmp_path: Path, allowed: str | None, status: int
) -> None:
    """Browsers do not send another site's password."""
    login = {"BASIC_AUTH_USER": "ann", "BASIC_AUTH_PASS": "pass-word"}
    browser = make_browser(tmp_path, allowed_hosts=allowed, **login)
    headers = {"Host": "evil.test", **basic("ann", "pass-word")}
    assert browser.get("/api/v1/projects", headers=headers).status_code == status
