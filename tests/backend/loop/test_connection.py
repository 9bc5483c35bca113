"""Only what Label Studio itself says of the connection counts, whatever `/setup` receives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from support.offline import BACKEND, FakeLabelStudio, add_project, make_services, make_work

from cdal.backend.errors import LabelStudioError
from cdal.backend.jobs.gathering import POLL
from cdal.backend.label_studio.data import MLBackendInfo, WebhookInfo
from cdal.backend.label_studio.webhook import HEADER
from cdal.backend.loop import sync
from cdal.backend.loop.connection import NOT_LISTED
from cdal.backend.services import Services
from cdal.backend.store.tables import Event, Project

NEW = {"connected_at": None, "webhook_guarded_at": None}


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return make_services(tmp_path)


@pytest.fixture
def label_studio() -> FakeLabelStudio:
    made = FakeLabelStudio()
    made.add_tasks(range(3))
    return made


def look(
    services: Services, label_studio: FakeLabelStudio, asked_by: str = POLL, **settings: Any
) -> Project:
    with services.store.reading() as session:
        project = session.get_one(Project, 1)
    sync.run(make_work(services, project, label_studio, asked_by=asked_by, **settings))
    with services.store.reading() as session:
        return session.get_one(Project, 1)


def events(services: Services) -> list[str]:
    with services.store.reading() as session:
        return list(session.scalars(select(Event.text).order_by(Event.id)))


def test_the_webhook_is_given_a_secret_beside_what_it_bears(
    services: Services, label_studio: FakeLabelStudio
) -> None:
    add_project(services, **NEW)
    others = WebhookInfo(2, "http://elsewhere.test/hook", {})
    label_studio.hooks = [WebhookInfo(1, f"{BACKEND}/webhook", {"X-Kept": "yes"}), others]
    project = look(services, label_studio, "set up")
    assert project.webhook_guarded_at is not None
    assert label_studio.hooks == [
        WebhookInfo(
            1, f"{BACKEND}/webhook", {"X-Kept": "yes", HEADER: project.webhook_secret}, False
        ),
        others,
    ]
    assert project.webhook_secret not in " ".join(events(services))


def test_it_is_written_once_and_again_where_it_is_lost(
    services: Services, label_studio: FakeLabelStudio
) -> None:
    add_project(services, **NEW)
    secret = look(services, label_studio).webhook_secret
    look(services, label_studio)
    assert label_studio.calls.count("webhook") == 1
    label_studio.hooks = [WebhookInfo(5, f"{BACKEND}/webhook", {})]  # connected again
    assert look(services, label_studio).webhook_secret == secret
    assert label_studio.hooks[0].headers == {HEADER: secret}
    assert [text for text in events(services) if "secret" in text] == [
        "Label Studio's webhook carries the secret",
        "Label Studio's webhook again carries the secret",
    ]


def test_a_kill_before_it_was_given_away_keeps_the_secret(
    services: Services, label_studio: FakeLabelStudio
) -> None:
    add_project(services, **{**NEW, "webhook_secret": "1.made-before"})
    assert look(services, label_studio).webhook_secret == "1.made-before"
    assert label_studio.hooks[0].headers == {HEADER: "1.made-before"}


@pytest.mark.parametrize("before", ["of-an-earlier-version", "2.of-another-project"])
def test_a_secret_that_does_not_name_the_project_is_replaced(
    services: Services, label_studio: FakeLabelStudio, before: str
) -> None:
    add_project(services, webhook_secret=before)
    label_studio.hooks = [WebhookInfo(1, f"{BACKEND}/webhook", {HEADER: before})]
    secret = look(services, label_studio).webhook_secret
    assert secret is not None
    assert secret.startswith("1.")
    assert label_studio.hooks == [
        WebhookInfo(1, f"{BACKEND}/webhook", {HEADER: secret}, sends_payload=False)
    ]


def test_a_webhook_that_sends_content_again_is_told_not_to(
    services: Services, label_studio: FakeLabelStudio
) -> None:
    add_project(services, **NEW)
    look(services, label_studio)
    (guarded,) = label_studio.hooks
    label_studio.hooks = [replace(guarded, sends_payload=True)]
    look(services, label_studio)
    assert label_studio.hooks == [guarded]


def test_a_webhook_that_may_not_be_changed_is_heard_as_before(
    services: Services, label_studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_project(services, **NEW)

    def refuse(*_: object) -> None:
        raise LabelStudioError("Label Studio refused to change the webhook: 400", 400)

    monkeypatch.setattr(label_studio, "change_webhook", refuse)
    project = look(services, label_studio)
    assert project.connected_at is not None
    assert project.webhook_guarded_at is None


def test_of_several_backends_ours_is_known_by_its_address(
    services: Services, label_studio: FakeLabelStudio
) -> None:
    add_project(services, **{**NEW, "backend_host": "ours.test:9090"})
    label_studio.backends = [
        MLBackendInfo("http://sam.test:9090", None),
        MLBackendInfo("http://ours.test:9090/", None),
    ]
    label_studio.hooks = [
        WebhookInfo(1, "http://sam.test:9090/webhook", {}),
        WebhookInfo(2, "http://ours.test:9090/webhook", {}),
    ]
    look(services, label_studio)
    assert [bool(hook.headers) for hook in label_studio.hooks] == [False, True]


def test_where_ours_is_not_known_no_webhook_is_touched(
    services: Services, label_studio: FakeLabelStudio
) -> None:
    add_project(services, **NEW)
    label_studio.backends.append(MLBackendInfo("http://sam.test:9090", None))
    project = look(services, label_studio)
    assert project.connected_at is not None
    assert "headers" not in label_studio.calls


def test_for_a_project_that_lists_no_backend_nothing_is_done(
    services: Services, label_studio: FakeLabelStudio
) -> None:
    add_project(services)
    label_studio.backends = []  # disconnected, or never connected: `/setup` was somebody else's
    project = look(services, label_studio)
    assert (project.connected_at, project.problem) == (None, NOT_LISTED)
    assert "connect the backend" in (project.problem_advice or "")
    assert events(services) == [NOT_LISTED]
    look(services, label_studio)
    look(services, label_studio, "ANNOTATION_CREATED")
    assert events(services) == [NOT_LISTED]  # no round has begun, and it is said once

    label_studio.backends = [MLBackendInfo(BACKEND, None)]
    project = look(services, label_studio, "set up")
    assert project.connected_at is not None
    assert project.problem is None
    assert any(text.startswith("Round 1 is random: ") for text in events(services))


def test_a_token_that_may_not_list_backends_does(
    services: Services, label_studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_project(services)

    def refuse() -> list[MLBackendInfo]:
        raise LabelStudioError("Label Studio refused to list the ML backends: 403", 403)

    monkeypatch.setattr(label_studio, "ml_backends", refuse)
    look(services, label_studio)
    assert any(text.startswith("Round 1 is random: ") for text in events(services))


def test_settings_are_those_typed_in_label_studio(
    services: Services, label_studio: FakeLabelStudio
) -> None:
    add_project(services, extra_params={"budget": 999})  # sent to `/setup` by somebody else
    label_studio.backends = [MLBackendInfo(BACKEND, '{"budget": 7}')]
    assert look(services, label_studio, "ANNOTATION_CREATED").extra_params == {"budget": 999}
    assert look(services, label_studio).extra_params == '{"budget": 7}'
    look(services, label_studio)
    said = "The settings were not those typed in Label Studio"
    assert sum(text.startswith(said) for text in events(services)) == 1
    label_studio.backends = [MLBackendInfo(BACKEND, {"bugdet": 7})]  # which `/setup` refuses
    assert look(services, label_studio).extra_params == '{"budget": 7}'
