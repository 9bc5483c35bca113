"""Long requests leave threads to Label Studio's short calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest
from flask.testing import FlaskClient
from support.offline import add_project, make_browser, make_config, services_of

from cdal.backend.web.ml_backend import CDALModel

THREADS = 2
PATIENCE_S = 60.0


@pytest.fixture
def browser(tmp_path: Path) -> FlaskClient:
    return make_browser(tmp_path, threads=THREADS)


@contextmanager
def busy(browser: FlaskClient, monkeypatch: pytest.MonkeyPatch, predictions: int) -> Iterator[None]:
    """So many calls of `/predict` that do not end."""
    release, begun = Event(), Barrier(predictions + 1)

    def hang(*_: object) -> list[object]:
        begun.wait(PATIENCE_S)
        release.wait(PATIENCE_S)
        return []

    monkeypatch.setattr(CDALModel, "predict", hang)
    call = {"tasks": [], "project": "12.1700000000"}
    client = browser.application.test_client
    threads = [
        Thread(target=lambda: client().post("/predict", json=call)) for _ in range(predictions)
    ]
    with ExitStack() as ends:
        ends.callback(release.set)
        for thread in threads:
            thread.start()
        begun.wait(PATIENCE_S)
        yield
    for thread in threads:
        thread.join()


def test_predictions_leave_room_for_everything_else(
    browser: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_project(services_of(browser))
    call = {"tasks": [], "project": "12.1700000000"}
    with busy(browser, monkeypatch, predictions=THREADS):
        refused = browser.post("/predict", json=call)
        assert refused.status_code == 503
        assert "busy" in refused.json["error"]
        assert browser.get("/health").status_code == 200
        event = {"action": "ANNOTATION_CREATED", "project": {"id": 12}}
        assert browser.post("/webhook", json=event).status_code == 200
        assert browser.post("/setup", json={}).status_code == 400  # which is its own answer
        assert browser.get("/api/v1/projects").status_code == 200
    monkeypatch.undo()
    assert browser.post("/predict", json=call).status_code == 200  # the places were given back


def test_long_requests_of_any_kind_leave_room_for_the_short_ones(
    browser: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, begun = Event(), Barrier(2 * THREADS + 1)

    def hang(*_: object) -> str:
        begun.wait(PATIENCE_S)
        release.wait(PATIENCE_S)
        return "{}"

    monkeypatch.setitem(browser.application.view_functions, "api.projects", hang)
    client = browser.application.test_client
    threads = [Thread(target=lambda: client().get("/api/v1/projects")) for _ in range(2 * THREADS)]
    for thread in threads:
        thread.start()
    begun.wait(PATIENCE_S)
    assert browser.get("/metrics").status_code == 503
    assert browser.get("/health").status_code == 200
    release.set()
    for thread in threads:
        thread.join()
    assert browser.get("/metrics").status_code == 200


def test_there_are_threads_for_all_places(tmp_path: Path) -> None:
    assert make_config(tmp_path, threads=8).web_threads > 2 * 8
