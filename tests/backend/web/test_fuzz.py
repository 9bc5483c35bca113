"""Whatever is sent, the answer comes soon, is as the OpenAPI document says, and is never a 500.

Schemathesis draws requests from the document, sound ones and spoilt ones; hypothesis draws bodies
for the calls of Label Studio, and requests for the pages. `make endurance` sends 10,000 requests,
CI a few hundred. They go through the whole application in this process, where a second is one of
computing, whatever else the machine does. Label Studio is a fake: `/setup` would otherwise turn to
whatever it is told.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.offline import (
    CONFIG,
    UID,
    add_project,
    add_round,
    add_tasks,
    add_version,
    let_sign_in,
    make_browser,
    services_of,
    write_network,
)

MOST_SECONDS = 5.0
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
FUZZING = {
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
}


class Fuzzed:
    """An application with a connected project, and its answers."""

    def __init__(self, folder: Path) -> None:
        self.browser = make_browser(folder, CDAL_IMAGE_HOSTS="")
        services = services_of(self.browser)
        project = add_project(services)
        add_tasks(services, project, range(1, 5))
        version = add_version(services, project, {1: "cat"})
        write_network(services, project, version.number)
        add_round(
            services,
            project,
            [1, 2, 3, 4],
            queued=2,
            model_version_id=version.id,
            queue_version="CDAL round 1.1",
        )
        self.statuses: Counter[int] = Counter()

    def send(self, call: Callable[[], Any], what: Any) -> Any:
        """Send a request; fails where the answer is a 500 or takes too long to compute."""
        began = time.thread_time()
        answer = call()
        assert time.thread_time() - began < MOST_SECONDS, what
        self.statuses[answer.status_code] += 1
        assert answer.status_code != 500, what
        return answer


@pytest.fixture
def fuzzed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fuzzed:
    let_sign_in(monkeypatch)
    return Fuzzed(tmp_path)


def fuzz_the_document(fuzzed: Fuzzed, examples: int) -> None:
    """Send this many valid and as many invalid requests to each operation."""
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", fuzzed.browser.application)
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
                continue  # there is nothing to spoil

            @settings(max_examples=examples, **FUZZING)
            @given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
            def send(case: Case, real: bool) -> None:
                if real and "number" in case.path_parameters:
                    case.path_parameters["number"] = 1  # one that there is
                answer = fuzzed.send(case.call, case)
                if case.path == "/ready":  # it is not, since no worker runs
                    assert answer.status_code == 503
                else:
                    case.validate_response(answer, checks=CHECKS)

            send()


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**400), max_value=10**400)
    | st.floats()
    | st.text()
    | st.sampled_from(
        [UID, "12", "\0", "a" * 100_000, '"ж"', "1e999", "\u2028", "../../etc/passwd"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
TASKS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.integers(-3, 9) | VALUES,
            "data": st.fixed_dictionaries({}, optional={"image": VALUES}) | VALUES,
        },
    )
    | VALUES,
    max_size=5,
)
NAMES = (
    "budget",
    "selector",
    "selector_options",
    "network",
    "weights",
    "control",
    "select_by",
    "pretrained",
    "learning_rate",
)
SETTINGS = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, VALUES))
PROJECTS = st.sampled_from([UID, "12.1", "13", ""]) | VALUES
CONFIGS = st.just(CONFIG) | st.text(alphabet="<>/=\"'$& Viewmagchos\n") | VALUES
BODIES = {
    "/setup": st.fixed_dictionaries(
        {"project": PROJECTS, "schema": CONFIGS},
        optional={"hostname": VALUES, "access_token": VALUES, "extra_params": SETTINGS | VALUES},
    ),
    "/predict": st.fixed_dictionaries({"project": PROJECTS, "tasks": TASKS | VALUES}),
    "/webhook": st.fixed_dictionaries(
        {"action": st.sampled_from(["START_TRAINING", "ANNOTATION_CREATED", ""]) | VALUES},
        optional={
            "project": st.fixed_dictionaries(
                {"id": st.just(12) | VALUES}, optional={"created_at": VALUES}
            )
            | VALUES
        },
    ),
    "/job_status": st.fixed_dictionaries({"job": st.integers(-1, 9) | VALUES}),
    "/validate": st.fixed_dictionaries({"config": CONFIGS}),
    "/delete": VALUES,
    "/duplicate_model": VALUES,
}
SPOILT = st.sampled_from(
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"1" * 9000,
        b"[" * 100_000,
        b'{"a":' * 9000,
        b'{"project": "\\udc00"}',
    ]
)
HEADERS = st.dictionaries(
    st.sampled_from(["X-CDAL-Webhook", "Authorization", "Origin", "Host", "Sec-Fetch-Site"]),
    st.sampled_from(["", "Basic", "Basic !!!", "Basic w6Q6", "http://[", "null", "localhost"]),
    max_size=2,
)


def fuzz_label_studios_call(fuzzed: Fuzzed, path: str, examples: int) -> None:
    """Send this many bodies to a call, valid and invalid ones."""
    browser: FlaskClient = fuzzed.browser

    @settings(max_examples=examples, **FUZZING)
    @given(body=BODIES[path].map(lambda body: json.dumps(body).encode()) | SPOILT, headers=HEADERS)
    def send(body: bytes, headers: dict[str, str]) -> None:
        def call() -> Any:
            return browser.post(path, data=body, headers=headers, content_type="application/json")

        answer = fuzzed.send(call, (path, body, headers))
        assert isinstance(answer.get_json(), dict)
        if answer.status_code >= 400:
            assert set(answer.get_json()) == {"error"}

    send()


NAMED = ("train", "rescore", "roll-back", "pause", "resume", "cancel", "retry", "..")
FIELDS = ("from", "colour", "job", "version", "tasks", "budget", "selector", "held_out")
WORDS = st.sampled_from(["", "1", "-1", "1,2", "1" * 40, "class", "\0", "<script>"]) | st.text(
    alphabet=st.characters(codec="utf-8"), max_size=30
)
COOKIES = st.sampled_from(["", "cdal-said=%", "cdal-said=%ff%00", "cdal-said=<b>", "a=b; ;;="])


def page_paths(fuzzed: Fuzzed) -> list[tuple[str, str]]:
    """Method and path of what the document does not describe: the pages and what they load."""
    found = []
    for rule in fuzzed.browser.application.url_map.iter_rules():
        if rule.rule.startswith(("/projects", "/pages", "/static", "/metrics")):
            methods = (rule.methods or set()) & {"GET", "POST"}
            found += [(method, rule.rule) for method in sorted(methods)]
    return found


def fuzz_a_page(fuzzed: Fuzzed, method: str, rule: str, examples: int) -> None:
    """Send this many requests to a page, with numbers, names, queries, forms and cookies."""
    browser: FlaskClient = fuzzed.browser

    @settings(max_examples=examples, **FUZZING)
    @given(
        number=st.sampled_from([1, 1, 1, 2, 2**31 - 1, 2**63]),
        name=st.sampled_from(NAMED) | WORDS,
        query=st.dictionaries(st.sampled_from(FIELDS), WORDS, max_size=3),
        form=st.dictionaries(st.sampled_from(FIELDS), WORDS, max_size=4),
        cookie=COOKIES,
    )
    def send(
        number: int, name: str, query: dict[str, str], form: dict[str, str], cookie: str
    ) -> None:
        path = re.sub("<int[^>]*>", str(number), rule)
        path = re.sub("<[^>]*>", lambda _: quote(name, safe=""), path)

        def call() -> Any:
            return browser.open(
                path,
                method=method,
                query_string=query,
                data=form if method == "POST" else None,
                headers={"Cookie": cookie},
            )

        answer = fuzzed.send(call, (method, path, query, form, cookie))
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]

    send()


@pytest.mark.slow
def test_a_few_hundred_requests(fuzzed: Fuzzed) -> None:
    fuzz_the_document(fuzzed, 8)
    for path in BODIES:
        fuzz_label_studios_call(fuzzed, path, 25)
    for method, rule in page_paths(fuzzed):
        fuzz_a_page(fuzzed, method, rule, 4)
    assert fuzzed.statuses.total() >= 300
    assert fuzzed.statuses[200] >= 50


@pytest.mark.endurance
@pytest.mark.timeout(3600)
def test_ten_thousand_requests(fuzzed: Fuzzed) -> None:
    fuzz_the_document(fuzzed, 200)
    for path in BODIES:
        fuzz_label_studios_call(fuzzed, path, 600)
    for method, rule in page_paths(fuzzed):
        fuzz_a_page(fuzzed, method, rule, 100)
    assert fuzzed.statuses.total() >= 10_000, fuzzed.statuses
    assert fuzzed.statuses[200] >= 1000
