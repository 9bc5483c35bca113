"""Who may send requests, and the answers when something goes wrong."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from support.offline import CONFIG, UID, add_project, jobs_of, make_browser, services_of
from support.processes import PATIENCE

from cdal.backend.web.app import status_text
from cdal.demo.backend import BackendServer
from cdal.demo.label_studio import LabelStudioServer
from cdal.demo.process import DemoError
from cdal.demo.project import LabelStudioProject, choices_config
from cdal.models import ARCHITECTURES

IMAGE = '<Image name="image" value="$image"/>'
CHOICES = '<Choices name="label" toName="image"><Choice value="a"/><Choice value="b"/></Choices>'
SELECTORS = (
    '"cdal-cs", "cdal-rl", "cd-greedy", "random", "entropy", "margin", "least-confidence", '
    '"core-set", "typiclust", "prob-cover", "badge", "bald", "mc-dropout", "committee", '
    '"suggestive-annotation" or "dropquery"'
)
NETWORKS = ", ".join(
    [*dict.fromkeys(n for names in ARCHITECTURES.values() for n in names), "or timm:NAME"]
)
SERVES = "it serves <Choices>, <RectangleLabels>, <BrushLabels>, <BitmaskLabels>, <PolygonLabels>."

BAD_SETTINGS: list[tuple[Any, str]] = [
    ({"budget": 0}, 'Setting "budget" must be at least 1, not 0.'),
    ({"budget": "many"}, 'Setting "budget" must be a whole number, not "many".'),
    ({"budget": 2.5}, 'Setting "budget" must be a whole number, not 2.5.'),
    ({"budget": 10**9}, 'Setting "budget" must be at most 1000000, not 1000000000.'),
    ({"reserve": 0}, 'Setting "reserve" must be at least 1, not 0.'),
    ({"reserve": 10**9}, 'Setting "reserve" must be at most 1000000, not 1000000000.'),
    ({"held_out": 2}, 'Setting "held_out" must be less than 0.9, not 2.'),
    ({"tolerance": -1}, 'Setting "tolerance" must be at least 0.0, not -1.'),
    ({"image_size": 7}, 'Setting "image_size" must be at least 32, not 7.'),
    ({"min_labels": 1}, 'Setting "min_labels" must be at least 2, not 1.'),
    ({"pretrained": "yes"}, 'Setting "pretrained" must be true, false or "auto", not "yes".'),
    (
        {"region": "box"},
        'Setting "region" must be one of "auto", "class" or "image", not "box".',
    ),
    ({"selector": "cdal"}, f'Setting "selector" must be one of {SELECTORS}, not "cdal".'),
    (
        {"selector_options": {"alpa": 1}},
        'Setting "selector_options": cdal-cs has no option "alpa"; its only option is "missing".',
    ),
    (
        {"selector": "cdal-rl", "selector_options": {"weights": "/etc/cron.d/x"}},
        'Setting "selector_options": option "weights" names a file on the backend\'s machine, '
        "which a project's settings may not do; leave it out.",
    ),
    (
        {"network": "resnet81"},
        f'Setting "network": there is no network "resnet81"; choose one of {NETWORKS}.',
    ),
    ({"bugdet": 5}, 'There is no setting "bugdet"; did you mean "budget"?'),
    ({"colour": 5}, 'There is no setting "colour"; see docs/settings.md.'),
    ([1], 'The extra params are a list; they must be a JSON object, such as {"budget": 50}.'),
    (7, 'The extra params are a number; they must be a JSON object, such as {"budget": 50}.'),
    (
        '{"budget": ',
        "The extra params are not valid JSON (Expecting value: line 1 column 12 (char 11)); they "
        'must be an object such as {"budget": 50}.',
    ),
]

BAD_CONFIGS: list[tuple[str, str]] = [
    ("", "The labeling config is empty; set up the labeling interface first."),
    (
        "<View><Image",
        "The labeling config cannot be read: Couldn't find end of Start Tag Image line 1, line 1, "
        "column 13.",
    ),
    (
        f"<!DOCTYPE v><View>{IMAGE}{CHOICES}</View>",
        "The labeling config has a <!DOCTYPE> or an <!ENTITY>; remove it.",
    ),
    (
        f'<!ENTITY e "x"><View>{IMAGE}{CHOICES}</View>',
        "The labeling config has a <!DOCTYPE> or an <!ENTITY>; remove it.",
    ),
    (
        f'<View><Text name="image" value="$text"/>{CHOICES}</View>',
        "The labeling config has no <Image>; this backend labels images.",
    ),
    (
        f'<View>{IMAGE}<Image name="other" value="$other"/>{CHOICES}</View>',
        'The labeling config has 2 images ("image", "other"); this backend serves configs with '
        "one <Image>.",
    ),
    (
        f'<View>{IMAGE}<EllipseLabels name="b" toName="image"><Label value="x"/>'
        "</EllipseLabels></View>",
        f"The image has no control that this backend serves (found: <EllipseLabels>); {SERVES}",
    ),
    (
        f"<View>{IMAGE}</View>",
        f"The image has no control that this backend serves (found: none); {SERVES}",
    ),
    (
        "<View>" + IMAGE + CHOICES.replace(" toName", ' perRegion="true" toName') + "</View>",
        'The <Choices> "label" is asked for each region (perRegion); this backend serves one label '
        "per image: remove perRegion.",
    ),
    (
        "<View>" + IMAGE + CHOICES.replace(" toName", ' value="$options" toName') + "</View>",
        'The <Choices> "label" takes its choices from each task\'s data; this backend needs them '
        "in the labeling config.",
    ),
    (
        "<View>" + IMAGE + CHOICES.replace('<Choice value="b"/>', "") + "</View>",
        'The <Choices> "label" has one choice; a model needs at least two to choose between.',
    ),
    (
        f'<View><Image name="image" value="https://host/$name"/>{CHOICES}</View>',
        'The <Image> "image" has value="https://host/$name"; it must name one field of the task\'s '
        'data, such as value="$image".',
    ),
]


def body(**changes: Any) -> dict[str, Any]:
    sent = {
        "project": UID,
        "schema": CONFIG,
        "hostname": "http://label-studio.test",
        "access_token": "token",
        "extra_params": None,
    }
    return {**sent, **changes}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    made = make_browser(tmp_path_factory.mktemp("data"))
    yield made
    services_of(made).close()


def assert_refused(browser: FlaskClient, sent: dict[str, Any], sentence: str) -> None:
    answer = browser.post("/setup", json=sent)
    assert answer.status_code == 400
    assert answer.get_json() == {"error": sentence}
    # Label Studio shows the reason of the status line, and nothing of the body.
    assert answer.status == f"400 {sentence}"
    assert jobs_of(services_of(browser)) == []  # nothing comes of it


@pytest.mark.parametrize(("extra_params", "sentence"), BAD_SETTINGS, ids=range(len(BAD_SETTINGS)))
def test_bad_settings_are_refused_with_a_sentence(
    browser: FlaskClient, extra_params: Any, sentence: str
) -> None:
    assert_refused(browser, body(extra_params=extra_params), sentence)


@pytest.mark.parametrize(("config", "sentence"), BAD_CONFIGS, ids=range(len(BAD_CONFIGS)))
def test_bad_labeling_configs_are_refused_with_a_sentence(
    browser: FlaskClient, config: str, sentence: str
) -> None:
    assert_refused(browser, body(schema=config), sentence)


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ({}, 'The field "project" must be Label Studio\'s, such as "12.1700000000".'),
        (
            body(project="²"),
            'The field "project" must be Label Studio\'s, such as "12.1700000000".',
        ),
        (
            body(project="9" * 40),
            'The field "project" must be Label Studio\'s, such as "12.1700000000".',
        ),
        (body(schema=["x"]), 'The field "schema" must be text.'),
        (body(access_token=5), 'The field "access_token" must be text.'),
    ],
)
def test_bad_calls_are_refused_with_a_sentence(
    browser: FlaskClient, sent: dict[str, Any], sentence: str
) -> None:
    assert_refused(browser, sent, sentence)


@given(st.text())
def test_a_status_line_is_one_line_whatever_the_text(text: str) -> None:
    line = status_text(text)
    line.encode("latin-1")
    assert len(line) <= 500
    assert all(character.isprintable() for character in line)


def test_nothing_can_be_smuggled_into_the_headers(browser: FlaskClient) -> None:
    name = "budget\r\nSet-Cookie: a=b\r\n\r\n<script>\x00\x1b[31m\x85\u2028ж"
    answer = browser.post("/setup", json=body(extra_params={name: 1}))
    assert answer.status_code == 400
    assert "Set-Cookie" not in answer.headers
    assert answer.status.startswith('400 There is no setting "budget Set-Cookie: a=b')
    assert answer.status.isprintable()


# Against a real server: what the person who connects the backend sees.


@pytest.fixture
def project(label_studio: LabelStudioServer) -> Iterator[LabelStudioProject]:
    made = LabelStudioProject.create(
        label_studio.url, label_studio.token, "to be refused", choices_config(["a", "b"])
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def with_a_wrong_key(start_backend: Callable[..., BackendServer]) -> BackendServer:
    return start_backend(LABEL_STUDIO_API_KEY=secrets.token_hex(20))


def sentences(error: DemoError) -> str:
    """Label Studio's answer, without JSON's escapes."""
    return str(error).replace('\\"', '"')


@pytest.mark.label_studio
def test_label_studio_shows_what_is_wrong_with_the_settings(
    backend: BackendServer, project: LabelStudioProject
) -> None:
    with pytest.raises(DemoError) as caught:
        project.connect(backend.url, {"bugdet": 5})
    assert 'There is no setting "bugdet"; did you mean "budget"?' in sentences(caught.value)


@pytest.mark.label_studio
def test_label_studio_shows_what_is_wrong_with_the_labeling_config(
    backend: BackendServer, project: LabelStudioProject
) -> None:
    config, sentence = next(row for row in BAD_CONFIGS if "perRegion" in row[1])
    project.sdk.projects.update(id=project.number, label_config=config)
    with pytest.raises(DemoError) as caught:
        project.connect(backend.url)
    assert sentence in sentences(caught.value)


@pytest.mark.label_studio
def test_label_studio_shows_that_no_token_may_read_the_project(
    with_a_wrong_key: BackendServer, label_studio: LabelStudioServer, project: LabelStudioProject
) -> None:
    answer = httpx.post(
        f"{with_a_wrong_key.url}/setup",
        json={
            "project": f"{project.number}.1",
            "schema": choices_config(["a", "b"]),
            "hostname": label_studio.url,
            "access_token": secrets.token_hex(20),
        },
        timeout=PATIENCE,
    )
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(
        f"The backend cannot read this project at {label_studio.url} (Label Studio refused to "
        "read the project: 401"
    )
    assert answer.json()["error"].endswith(
        "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY, the access token of a user who may change "
        "the project, for the backend."
    )


@pytest.mark.label_studio
def test_with_a_wrong_key_the_handed_over_token_does(
    with_a_wrong_key: BackendServer, project: LabelStudioProject
) -> None:
    """Not only for the set-up: the job that follows must be able to read the project."""
    project.connect(with_a_wrong_key.url)
    status = with_a_wrong_key.wait_for(
        project.number,
        "sync",
        lambda s: any(job["kind"] == "sync" and job["state"] == "done" for job in s["jobs"]),
        PATIENCE,
    )
    assert status["title"] == "to be refused"


# Errors.


def test_an_error_reveals_no_secrets_and_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    browser = make_browser(tmp_path)
    add_project(services_of(browser))

    def broken(*_: object) -> None:
        raise RuntimeError("the inner secret")

    monkeypatch.setattr("cdal.backend.web.model.CDALModel.predict", broken)
    answer = browser.post("/predict", json={"project": UID, "tasks": []})
    assert answer.status_code == 500
    assert answer.get_json() == {"error": "Internal error; see the backend's log for details."}
    assert "the inner secret" in caplog.text


@pytest.mark.parametrize(("path", "status"), [("/no/such/page", 404), ("/setup", 405)])
def test_other_errors_are_json_too(browser: FlaskClient, path: str, status: int) -> None:
    answer = browser.get(path)
    assert answer.status_code == status
    assert set(answer.get_json()) == {"error"}
