"""Ready, or which part is not."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from support.offline import add_project, make_browser, make_services, services_of

from cdal.backend.reports import health as health_report
from cdal.backend.services import Services
from cdal.backend.store.tables import Job, Worker, now

Health = dict[str, Any]


@pytest.fixture
def health() -> Iterator[Health]:
    """A stand-in for Label Studio that answers /health as a test says."""
    state: Health = {"status": 200, "asked": 0}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state["asked"] += 1
            self.send_response(state["status"])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    state["url"] = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def browser(tmp_path: Path, health: Health) -> FlaskClient:
    made = make_browser(tmp_path, LABEL_STUDIO_URL=health["url"])
    beat(services_of(made))
    return made


def beat(services: Services, seconds_ago: float = 0.0) -> datetime:
    """Record a heartbeat; returns its time."""
    at = now() - timedelta(seconds=seconds_ago)
    with services.store.transaction() as session:
        session.merge(
            Worker(id=1, host="here", machine="m", folder="f", pid=7, started_at=at, seen_at=at)
        )
    return at


def seconds_in(text: str, since: datetime) -> int:
    """The seconds that a text states; checks that they are those since a moment."""
    found = re.search(r"(\d+) s\b", text)
    assert found is not None
    assert int(found[1]) <= (now() - since).total_seconds() + 1
    return int(found[1])


def ask(browser: FlaskClient) -> tuple[int, dict[str, tuple[bool, str]]]:
    answer = browser.get("/ready")
    body = answer.get_json()
    assert body["ready"] == (answer.status_code == 200)
    assert body["ready"] == all(check["ok"] for check in body["checks"])
    return answer.status_code, {c["name"]: (c["ok"], c["text"]) for c in body["checks"]}


def test_all_is_well(browser: FlaskClient, health: Health) -> None:
    status, checks = ask(browser)
    assert status == 200
    free = checks.pop("disk")[1]
    assert free.endswith(" GB are free in the data folder.")
    assert checks == {
        "store": (True, "The database answers."),
        "queue": (True, "Jobs reach the worker."),
        "worker": (True, "The worker is running on here (process 7)."),
        "label studio": (True, f"{health['url']} answers."),
    }


def test_no_worker_or_one_that_hangs(browser: FlaskClient) -> None:
    at = beat(services_of(browser), seconds_ago=60)
    status, checks = ask(browser)
    assert status == 503
    alive, text = checks["worker"]
    assert not alive
    assert seconds_in(text, at) >= 60
    assert text.endswith(" s ago; it was killed or is stuck.")
    with services_of(browser).store.transaction() as session:
        session.query(Worker).delete()
    assert ask(browser)[1]["worker"] == (
        False,
        "No worker is running; start cdal serve or cdal worker.",
    )


def test_a_full_disk(browser: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_report, "free_bytes", lambda _: 100 * 2**20)
    status, checks = ask(browser)
    assert (status, checks["disk"]) == (503, (False, "0.1 GB are free in the data folder."))


def test_a_job_that_nobody_begins(browser: FlaskClient) -> None:
    services = services_of(browser)
    services.jobs.ask(add_project(services).id, "train", "test")
    with services.store.transaction() as session:
        session.get_one(Job, 1).created_at -= timedelta(seconds=1000)
        since = session.get_one(Job, 1).created_at
    status, checks = ask(browser)
    ready, text = checks["queue"]
    assert (status, ready) == (503, False)
    assert text.startswith("A job has been waiting for ")
    assert seconds_in(text, since) >= 1000


def test_a_database_that_is_away(browser: FlaskClient, tmp_path: Path) -> None:
    services_of(browser).store.close()
    for file in tmp_path.glob("cdal.sqlite*"):
        file.unlink()
    (tmp_path / "cdal.sqlite").write_bytes(b"no database at all, but some text" * 100)
    status, checks = ask(browser)
    assert status == 503
    assert not checks["store"][0]
    assert checks["store"][1].startswith("The database is damaged")


def test_label_studio_away_or_broken_is_asked_seldom(
    browser: FlaskClient, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    health["status"] = 502
    for _ in range(5):
        status, checks = ask(browser)
        assert (status, checks["label studio"]) == (503, (False, f"{health['url']} answers 502."))
    assert health["asked"] == 1
    monkeypatch.setattr(health_report, "REMEMBERED_SECONDS", 0.0)
    health["status"] = 200
    assert ask(browser)[0] == 200


def test_every_label_studio_is_looked_at(tmp_path: Path, health: Health) -> None:
    browser = make_browser(tmp_path, LABEL_STUDIO_URL=None, LABEL_STUDIO_API_KEY=None)
    services = services_of(browser)
    beat(services)
    assert ask(browser)[1]["label studio"] == (True, "No project is connected yet.")
    add_project(services, url=health["url"])
    add_project(services, uid="13.1", url="http://127.0.0.1:9")
    checks = browser.get("/ready").get_json()["checks"]
    assert {c["text"] for c in checks if c["name"] == "label studio"} == {
        "http://127.0.0.1:9 cannot be reached.",
        f"{health['url']} answers.",
    }


def test_label_studios_are_asked_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = make_services(tmp_path)
    for number in range(3):
        add_project(services, url=f"http://server-{number}.invalid")
    all_asked = threading.Barrier(3)

    def reach(url: str) -> health_report.CheckView:
        if "//server-" in url:  # and not the one of the configuration
            all_asked.wait(30)  # broken if one is asked after another
        return health_report.CheckView(name="label studio", ok=True, text=f"{url} answers.")

    monkeypatch.setattr(health_report, "_reach", reach)
    readiness = health_report.Readiness(services)
    found = [c.text for c in readiness.view().checks if "//server-" in c.text]
    assert found == [f"http://server-{number}.invalid answers." for number in range(3)]
    monkeypatch.setattr(health_report, "_reach", lambda _: pytest.fail("asked again"))
    assert readiness.view().checks
