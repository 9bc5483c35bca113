"""Connecting a project: whose token is used, and what is remembered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.offline import (
    CONFIG,
    UID,
    URL,
    FakeLabelStudio,
    jobs_of,
    let_sign_in,
    make_services,
)

from cdal.backend.errors import LabelStudioError, RefusedError
from cdal.backend.label_studio.client import LabelStudioClient
from cdal.backend.label_studio.data import WebhookInfo
from cdal.backend.label_studio.webhook import HEADER
from cdal.backend.services import Services
from cdal.backend.store.tables import Event, Project, now
from cdal.backend.web import moved, setup
from cdal.backend.web.setup import SetupRequest, connect

SERVERS_KEY = "the-servers-key"
HANDED_OVER = "handed-over-token"


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The tokens that may read the project, and those that were tried.

    The check of a token is a fake here: what a real Label Studio says is in test_app.py.
    """
    good = {SERVERS_KEY, HANDED_OVER}
    return {"good": good, "tried": let_sign_in(monkeypatch, good)}


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


def request(**changes: Any) -> SetupRequest:
    body = {
        "project": UID,
        "schema": CONFIG,
        "hostname": "http://handed-over.test",
        "access_token": HANDED_OVER,
        "extra_params": None,
    }
    return SetupRequest.of({**body, **changes})


def token_in_use(services: Services, project: Project) -> str:
    token: str = services.client(project)._sdk._client_wrapper._tokens_client._api_key
    return token


def test_the_servers_own_key_comes_first(services: Services, tokens: dict[str, Any]) -> None:
    project = connect(services, request())
    assert tokens["tried"] == [SERVERS_KEY]
    assert project.access_token is None  # what is not needed is not kept
    assert token_in_use(services, project) == SERVERS_KEY


def test_where_it_may_not_read_the_project_the_handed_over_token_is_used(
    services: Services, tokens: dict[str, Any]
) -> None:
    tokens["good"].discard(SERVERS_KEY)
    project = connect(services, request())
    assert tokens["tried"] == [SERVERS_KEY, HANDED_OVER]
    assert project.access_token == HANDED_OVER
    assert token_in_use(services, project) == HANDED_OVER  # by the jobs, too


def test_once_the_servers_key_works_it_is_used_again(
    services: Services, tokens: dict[str, Any]
) -> None:
    tokens["good"].discard(SERVERS_KEY)
    connect(services, request())
    tokens["good"].add(SERVERS_KEY)
    project = connect(services, request())
    assert project.access_token is None
    assert token_in_use(services, project) == SERVERS_KEY


def test_without_a_key_the_handed_over_address_and_token_are_used(
    tmp_path: Path, tokens: dict[str, Any]
) -> None:
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    project = connect(services, request())
    assert (project.url, project.access_token) == ("http://handed-over.test", HANDED_OVER)


def test_the_operators_address_is_not_overruled(services: Services, tokens: dict[str, Any]) -> None:
    assert connect(services, request(hostname="http://evil.test")).url == (
        "http://label-studio.test:8080"
    )


def test_a_token_that_worked_is_not_tried_again(services: Services, tokens: dict[str, Any]) -> None:
    for _ in range(5):
        connect(services, request())
    assert tokens["tried"] == [SERVERS_KEY]


def test_a_token_that_did_not_is(services: Services, tokens: dict[str, Any]) -> None:
    tokens["good"].clear()
    for _ in range(2):
        with pytest.raises(RefusedError):
            connect(services, request())
    assert len(tokens["tried"]) == 4


def test_setting_up_again_changes_and_requests_nothing(
    services: Services, tokens: dict[str, Any]
) -> None:
    first = connect(services, request())
    assert jobs_of(services) == [("sync", "pending")]
    job = services.jobs.claim(1)
    assert job is not None
    services.jobs.finish(job.id, "done")
    with services.store.transaction() as session:
        session.get_one(Project, first.id).connected_at = now()
    again = connect(services, request())
    assert again.id == first.id
    assert jobs_of(services) == [("sync", "done")]
    with services.store.reading() as session:
        assert session.query(Event).count() == 1


def test_new_settings_are_stored_and_start_a_sync(
    services: Services, tokens: dict[str, Any]
) -> None:
    connect(services, request())
    services.jobs.finish(1, "done")
    project = connect(services, request(extra_params={"budget": 5}))
    assert project.extra_params == {"budget": 5}
    assert jobs_of(services) == [("sync", "done"), ("sync", "pending")]


def test_a_new_project_with_the_same_number_is_another(
    services: Services, tokens: dict[str, Any]
) -> None:
    first = connect(services, request())
    second = connect(services, request(project="12.1800000000"))
    assert first.id != second.id
    assert first.label_studio_id == second.label_studio_id == 12


@pytest.mark.parametrize("hostname", ["", "label-studio:8080", "ftp://x", "http://", "http://["])
def test_invalid_addresses(tmp_path: Path, tokens: dict[str, Any], hostname: str) -> None:
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    with pytest.raises(RefusedError, match="is not an address of Label Studio"):
        connect(services, request(hostname=hostname))


def test_an_address_with_a_password_is_refused_without_repeating_it(
    tmp_path: Path, tokens: dict[str, Any]
) -> None:
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    with pytest.raises(RefusedError) as caught:
        connect(services, request(hostname="http://ann:pass-word@label-studio.test"))
    assert "pass-word" not in str(caught.value)


def test_no_secret_is_logged_or_returned(
    services: Services, tokens: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    connect(services, request())
    tokens["good"].clear()
    setup._trusted.clear()
    with pytest.raises(RefusedError) as caught:
        connect(services, request())
    for secret in (SERVERS_KEY, HANDED_OVER):
        assert secret not in caplog.text
        assert secret not in str(caught.value)


def test_a_token_ends_where_its_line_ends(tmp_path: Path, tokens: dict[str, Any]) -> None:
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    assert connect(services, request(access_token=f"{HANDED_OVER}\n")).access_token == HANDED_OVER
    for token in ("two words", "a\nb", "tökén"):
        with pytest.raises(RefusedError, match="access_token"):
            request(access_token=token)


STAGING = "http://staging.test"


def events(services: Services, project: int) -> list[str]:
    with services.store.reading() as session:
        found = session.query(Event).filter_by(project_id=project).order_by(Event.id)
        return [event.text for event in found]


def test_nobody_takes_a_project_over(tmp_path: Path, tokens: dict[str, Any]) -> None:
    """Nor does a copy of a server, whose projects have the same uids; the answer says so."""
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    first = connect(services, request())
    second = connect(services, request(hostname=STAGING, extra_params={"budget": 3}))
    assert first.id != second.id
    with services.store.reading() as session:
        kept = session.get_one(Project, first.id)
        assert (kept.url, kept.extra_params) == ("http://handed-over.test", None)
    assert STAGING in events(services, first.id)[-1]
    assert connect(services, request()).id == first.id
    assert connect(services, request(hostname=STAGING)).id == second.id


def test_another_spelling_of_an_address_is_the_same_server(
    tmp_path: Path, tokens: dict[str, Any]
) -> None:
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    first = connect(services, request())
    assert connect(services, request(hostname="HTTP://Handed-Over.test:80/")).id == first.id


class Webhooks:
    """Label Studios by address, of which some share a database, and who may read them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: dict[str, FakeLabelStudio] = {}
        self.asked: list[tuple[str, str]] = []

        def open_client(url: str, token: str, _number: int, **_: Any) -> FakeLabelStudio:
            self.asked.append((url, token))
            return self.at[url]

        monkeypatch.setattr(setup, "LabelStudioClient", open_client)
        monkeypatch.setattr(setup, "_trusted", {})

    def guard(self, services: Services, project: Project) -> None:
        """What the first look at a project does."""
        with services.store.transaction() as session:
            session.get_one(Project, project.id).webhook_secret = "secret"
        hook = WebhookInfo(1, "http://backend.test:9090/webhook", {HEADER: "secret"})
        self.at[project.url].hooks = [hook]


def test_a_renamed_server_keeps_its_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    servers = Webhooks(monkeypatch)
    one = servers.at["http://handed-over.test"] = servers.at["https://new.test"] = FakeLabelStudio()
    first = connect(services, request())
    servers.guard(services, first)
    after = connect(services, request(hostname="https://new.test", access_token="new"))
    assert (after.id, after.url, after.access_token) == (first.id, "https://new.test", "new")
    # The token that is held went to no other server than its own.
    assert ("https://new.test", HANDED_OVER) not in servers.asked
    with services.store.reading() as session:
        secret = session.get_one(Project, first.id).webhook_secret
    assert one.hooks[0].headers == {HEADER: secret}
    assert "https://new.test" in events(services, first.id)[-1]


def test_a_copy_with_an_old_secret_is_not_the_same_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    servers = Webhooks(monkeypatch)
    servers.at = {url: FakeLabelStudio() for url in ("http://handed-over.test", STAGING)}
    first = connect(services, request())
    servers.guard(services, first)
    servers.at[STAGING].hooks = list(servers.at["http://handed-over.test"].hooks)
    second = connect(services, request(hostname=STAGING))
    assert (second.id != first.id, second.url) == (True, STAGING)
    with services.store.reading() as session:
        assert session.get_one(Project, first.id).url == "http://handed-over.test"


def test_a_server_that_does_not_answer_does_not_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    servers = Webhooks(monkeypatch)
    servers.at["http://handed-over.test"] = servers.at["https://new.test"] = FakeLabelStudio()
    first = connect(services, request())
    servers.guard(services, first)
    away = servers.at["http://handed-over.test"] = FakeLabelStudio()

    def fail() -> list[WebhookInfo]:
        raise LabelStudioError("Label Studio did not answer")

    monkeypatch.setattr(away, "webhooks", fail)
    assert connect(services, request(hostname="https://new.test")).id != first.id


def test_many_projects_of_one_uid_do_not_hold_up_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can connect as many as they like, on servers that answer late or not at all."""
    monkeypatch.setattr(moved, "SEARCH_SECONDS", 0.0)
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    servers = Webhooks(monkeypatch)
    addresses = [f"http://planted-{n}.test" for n in range(4)]
    servers.at = {url: FakeLabelStudio() for url in addresses}
    for url in addresses[:3]:
        servers.guard(services, connect(services, request(hostname=url)))
    servers.asked.clear()
    connect(services, request(hostname=addresses[3]))
    assert {url for url, _ in servers.asked} == {addresses[0], addresses[3]}


def test_the_operator_moves_what_the_operators_key_serves(
    tmp_path: Path, tokens: dict[str, Any]
) -> None:
    first = connect(make_services(tmp_path), request())
    elsewhere = make_services(tmp_path, LABEL_STUDIO_URL="https://new.test/")
    # Until Label Studio has called, the new key is not sent to the old address.
    with pytest.raises(LabelStudioError, match=r"label-studio\.test:8080.*new\.test") as told:
        elsewhere.client(first)
    assert "open a task" in told.value.advice
    after = connect(elsewhere, request())
    assert (after.id, after.url) == (first.id, "https://new.test")
    assert elsewhere.client(after).url == "https://new.test"


def test_the_operators_key_goes_to_no_server_that_a_caller_named(
    tmp_path: Path, tokens: dict[str, Any]
) -> None:
    before = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    planted = connect(before, request(hostname="http://evil.test"))
    services = make_services(tmp_path)
    assert token_in_use(services, planted) == HANDED_OVER
    assert connect(services, request()).id != planted.id


def test_the_address_that_label_studio_calls_its_own_is_kept(
    services: Services, tokens: dict[str, Any]
) -> None:
    project = connect(services, request(hostname="https://ls.example.com/ls/"))
    assert project.url == URL
    assert services.image_source(project).public_url == "https://ls.example.com/ls"
    for hostname in (URL, "", "ftp://x", "http://u:p@x"):
        assert connect(services, request(hostname=hostname)).public_url is None


def test_where_it_calls_from_is_kept_without_another_look(
    services: Services, tokens: dict[str, Any]
) -> None:
    project = connect(services, request())
    services.jobs.finish(1, "done")
    with services.store.transaction() as session:
        session.get_one(Project, project.id).connected_at = now()
    body = {"project": UID, "schema": CONFIG, "hostname": "http://handed-over.test"}
    body["access_token"] = HANDED_OVER
    seen = connect(services, SetupRequest.of(body, "web:9090", "10.0.0.7"))
    assert (seen.backend_host, seen.caller) == ("web:9090", "10.0.0.7")
    assert jobs_of(services) == [("sync", "done")]


@contextmanager
def answering(headers: Mapping[str, str], body: bytes = b"", status: int = 200) -> Iterator[str]:
    """A web server that answers everything with this."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_that_is_not_label_studio() -> None:
    with (
        answering({"Content-Type": "text/html"}, b"<html>hello</html>") as url,
        closing(LabelStudioClient(url, "f" * 40, 1, retries=0)) as client,
        pytest.raises(LabelStudioError) as caught,
    ):
        client.read_project()
    assert (
        str(caught.value)
        == "The server that answered the request to read the project is not Label Studio."
    )


def test_a_server_that_is_not_there() -> None:
    client = LabelStudioClient("http://127.0.0.1:9", "token", 1, timeout_s=1, retries=0)
    with pytest.raises(LabelStudioError) as caught:
        client.read_project()
    assert str(caught.value) == (
        "Label Studio did not answer the request to read the project: it cannot be reached"
    )
    assert caught.value.status is None


@pytest.mark.parametrize(
    ("config", "settings", "words"),
    [
        ("<View/>", None, "no <Image>"),
        (CONFIG, {"budget": 0}, '"budget" must be at least 1'),
        (CONFIG, {"network": "drn_d_22"}, "not a network for classification"),
        (CONFIG, {"weights": "../../etc/passwd"}, "set CDAL_WEIGHTS_FOLDER"),
    ],
)
def test_what_cannot_be_served_is_refused_before_any_token_is_tried(
    services: Services, tokens: dict[str, Any], config: str, settings: Any, words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        connect(services, request(schema=config, extra_params=settings))
    assert tokens["tried"] == []


def test_until_label_studio_lists_the_backend_it_is_looked_for(
    services: Services, tokens: dict[str, Any]
) -> None:
    """The first time that it calls `/setup`, it has not even recorded the backend."""
    connect(services, request())
    services.jobs.finish(1, "done")
    connect(services, request())
    assert jobs_of(services) == [("sync", "done"), ("sync", "pending")]


def test_a_project_of_another_age_is_refused(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number alone is easily guessed, and the server's own key may read any project."""
    let_sign_in(monkeypatch, created=1_700_000_000)
    assert connect(services, request()).uid == UID
    with pytest.raises(RefusedError) as caught:
        connect(services, request(project="12.1700000001"))
    assert str(caught.value) == (
        'Project 12 of Label Studio was not created at the time that the field "project" says.'
    )


def test_a_time_of_creation_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    """A caller may have named any server, and what that says must end in no internal error."""
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    body = json.dumps({"id": 12, "title": "x", "created_at": "0001-01-01T00:00:00"}).encode()
    with answering({"Content-Type": "application/json"}, body) as url:
        assert connect(services, request(hostname=url, access_token="f" * 40)).uid == UID


@pytest.mark.parametrize(
    "hostname",
    [
        "http://169.254.169.254",
        "http://[fe80::1]:8080",
        "http://[::ffff:169.254.169.254]",
        "http://[64:ff9b::a9fe:a9fe]",
        "http://2852039166",  # 169.254.169.254 as one number
        "http://100.100.100.200",
        "http://[fd00:ec2::254]",
        "http://168.63.129.16",
        "http://192.0.0.192",
        "http://0.0.0.0:8080",
        "http://224.0.0.1",
    ],
)
def test_a_clouds_metadata_address_is_refused(
    tmp_path: Path, tokens: dict[str, Any], hostname: str
) -> None:
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    with pytest.raises(RefusedError, match="an address at which Label Studio cannot run"):
        connect(services, request(hostname=hostname))
    assert tokens["tried"] == []


@pytest.mark.parametrize("hostname", ["http://127.0.0.1:8080", "http://10.1.2.3", "http://[::1]"])
def test_it_may_be_on_this_machine_or_in_a_private_network(
    tmp_path: Path, tokens: dict[str, Any], hostname: str
) -> None:
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    assert connect(services, request(hostname=hostname)).url == hostname


def test_answers_of_a_server_named_by_a_caller_are_not_passed_on(
    tmp_path: Path, tokens: dict[str, Any]
) -> None:
    tokens["good"].clear()
    services = make_services(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    with pytest.raises(RefusedError, match=r"\(it answered 401\); set"):
        connect(services, request(hostname="http://127.0.0.1:8080"))


def test_redirects_to_another_server_are_not_followed() -> None:
    with (
        answering({"Content-Type": "text/html"}, b"<html>hello</html>") as elsewhere,
        answering({"Location": elsewhere.replace("127.0.0.1", "localhost")}, status=302) as url,
        closing(LabelStudioClient(url, "f" * 40, 1, retries=0)) as client,
        pytest.raises(LabelStudioError) as caught,
    ):
        client.read_project()
    assert str(caught.value) == (
        "Label Studio did not answer the request to read the project: it redirects to "
        "an address that is not its own"
    )


@pytest.mark.parametrize(
    "uid",
    [
        "12",
        "12.",
        "012.1700000000",
        "12.01700000000",
        "0.1700000000",
        "12.0",
        "-12.1",
        " 12.1",
        "١.1",
    ],
)
def test_a_project_is_named_as_label_studio_names_it_alone(uid: str) -> None:
    with pytest.raises(RefusedError) as caught:
        request(project=uid)
    assert str(caught.value) == (
        'The field "project" must be Label Studio\'s, such as "12.1700000000".'
    )


def test_trusted_tokens_are_bounded_and_the_newest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "_trusted", {})
    monkeypatch.setattr(setup, "MOST_TRUSTED", 3)
    marks = [("http://label-studio.test", UID, f"token {number}") for number in range(5)]
    for mark in [*marks, marks[2]]:
        setup._trust(mark)
    assert list(setup._trusted) == [marks[3], marks[4], marks[2]]
    assert [setup._is_trusted(mark) for mark in marks] == [False, False, True, True, True]
