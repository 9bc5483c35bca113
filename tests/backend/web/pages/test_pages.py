"""The pages' HTML: figures, words, refusals; without a browser."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from support.offline import (
    URL,
    FakeLabelStudio,
    add_project,
    add_round,
    add_tasks,
    add_version,
    basic,
    jobs_of,
    make_browser,
    make_work,
    picture,
    services_of,
)
from support.pooled import pooled_project
from werkzeug.test import TestResponse

from cdal.backend.images.cache import DiskCache
from cdal.backend.loop import comparison, pool_map
from cdal.backend.loop.comparison import QUICK
from cdal.backend.store.tables import (
    Annotation,
    ClassMetrics,
    Event,
    ModelVersion,
    Pick,
    Project,
    Savings,
    Submission,
    now,
)
from cdal.version import VERSION

POINT = {"labels": 40, "value": 0.5}
ESTIMATE = {
    "known": True, "why": None, "random": POINT, "curve": [POINT], "saved": 12.0,
    "metric": "accuracy", "images": 20, "needed": 28.0, "low": -3.0, "high": 30.0,
    "at_least": False, "at_most": False,
}  # fmt: skip

PAGES = ["", "/queue", "/pool-map", "/comparison", "/settings", "/confirm/rescore"]


@pytest.fixture
def browser(tmp_path: Path) -> FlaskClient:
    return make_browser(tmp_path)


@pytest.fixture
def pooled(browser: FlaskClient) -> FlaskClient:
    """Project 1 with a round, a model and a measured confusion."""
    project, _ = pooled_project(services_of(browser))
    with services_of(browser).store.transaction() as session:
        version = session.scalars(select(ModelVersion)).one()
        version.metrics = {
            "main_name": "accuracy",
            "values": {"accuracy": 0.75},
            "images": 8,
        }
        session.add(
            ClassMetrics(
                model_version_id=version.id,
                per_class={
                    "cat": {"count": 4, "score": 0.5},
                    "dog": {"count": 4, "score": 1.0},
                },
                columns=2,
                cells=[[0, 0, 2], [0, 1, 2], [1, 1, 4]],
            )
        )
        version.serving_metrics = {"main_name": "accuracy", "values": {"accuracy": 0.5}}
        session.get_one(Project, project.id).title = "Pets & <friends>"
    return browser


def text(answer: TestResponse) -> str:
    """A page's text, without its tags."""
    assert answer.status_code == 200, answer.get_data(as_text=True)
    body = re.sub(r"<[^>]+>", " ", answer.get_data(as_text=True))
    return " ".join(html.unescape(body).split())


def test_browsers_are_redirected_to_the_pages_and_others_get_a_status(
    browser: FlaskClient,
) -> None:
    answer = browser.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/projects")
    for accept in ("*/*", "application/json"):
        answer = browser.get("/", headers={"Accept": accept})
        assert answer.get_json() == {"status": "UP", "model_class": "CDALModel"}


def test_without_projects_the_page_says_how_to_connect_one(browser: FlaskClient) -> None:
    said = text(browser.get("/projects"))
    assert "No project is connected yet" in said
    assert "http://localhost" in said


@pytest.mark.parametrize("path", PAGES)
def test_every_page_of_a_project_that_has_just_been_connected(
    browser: FlaskClient, path: str
) -> None:
    add_project(services_of(browser))
    answer = browser.get(f"/projects/1{path}")
    assert answer.status_code == 200
    assert f"Version {VERSION}" in text(answer)


def test_figures_are_those_of_the_api_and_of_the_store(pooled: FlaskClient) -> None:
    told: dict[str, Any] = pooled.get("/api/v1/projects/1").get_json()
    said = text(pooled.get("/projects/1"))
    assert told["state"]["text"] == "waiting for 2 labels of round 2"
    assert told["state"]["text"] in said
    assert f"Labelled {told['labelled']} of {told['tasks']} images" in said
    assert (told["labelled"], told["tasks"]) == (1, 6)
    assert (told["metric"]["value"], told["metric"]["moved"]) == (0.75, 0.25)
    assert "Held-out accuracy 0.750 up 0.250 from 0.500" in said
    quality = pooled.get("/api/v1/projects/1/versions/1").get_json()
    (worst,) = quality["confused"]
    assert f"{worst['true']} {worst['taken_for']} 50% (2)" in said
    queue = pooled.get("/api/v1/projects/1/queue").get_json()["picks"]
    page = pooled.get("/projects/1/queue").get_data(as_text=True)
    shown = [int(task) for task in re.findall(r'id="rank-\d+">\s*.*?Task (\d+)<', page, re.S)]
    with services_of(pooled).store.reading() as session:
        stored = list(session.scalars(select(Pick.task_id).order_by(Pick.rank)))
    assert shown == [pick["task"] for pick in queue] == stored


def test_a_version_that_began_from_less_than_was_wished_says_why_and_what_to_do(
    pooled: FlaskClient,
) -> None:
    why = "This machine has no weights ResNet18_Weights, and downloads are off. Allow downloads."
    with services_of(pooled).store.transaction() as session:
        version = session.scalars(select(ModelVersion)).one()
        version.origin = {"name": "random weights", "source": "", "sha256": "", "shortfall": why}
    said = text(pooled.get("/projects/1"))
    assert f"{version.architecture}, from random weights" in said
    assert why in said


def test_the_queue_says_why_an_image_is_first(pooled: FlaskClient) -> None:
    said = text(pooled.get("/projects/1/queue"))
    assert "The first is task 3: in it the model sees" in said
    assert "dog at 90% rather than 10%" in said
    assert "compared with the nearest image (labelled)" in said
    assert "The model says dog, 75% sure" in said
    assert "What sets it apart: dog 60%, cat 40%" in said


def test_the_queue_has_the_ranks_of_the_other_selectors(pooled: FlaskClient) -> None:
    services = services_of(pooled)
    assert "is being computed" in text(pooled.get("/projects/1/queue"))
    assert jobs_of(services) == [("comparison", "pending")]
    pooled.get("/projects/1/queue")
    assert jobs_of(services) == [("comparison", "pending")]
    with services.store.reading() as session:
        project = session.get_one(Project, 1)
    comparison.run(make_work(services, project, FakeLabelStudio(), "comparison"))
    said = text(pooled.get("/projects/1/queue"))
    assert "entropy 5" in said
    assert all(name in said for name in QUICK)


def test_a_random_round_is_called_random(browser: FlaskClient) -> None:
    project = add_project(services_of(browser))
    add_tasks(services_of(browser), project, [1, 2])
    add_round(services_of(browser), project, [2, 1], queued=2)
    said = text(browser.get("/projects/1/queue"))
    assert "This first round is drawn at random" in said
    assert "Drawn at random: there is no model yet" in said


def test_the_pool_is_drawn_by_the_worker_and_then_shown(pooled: FlaskClient) -> None:
    services = services_of(pooled)
    assert "the map is being drawn" in text(pooled.get("/projects/1/pool-map"))
    assert jobs_of(services) == [("pool_map", "pending")]
    with services.store.reading() as session:
        project = session.get_one(Project, 1)
    pool_map.run(make_work(services, project, FakeLabelStudio(), "pool_map"))
    told = pooled.get("/api/v1/projects/1/pool-map").get_json()
    for colour, legend in (
        ("class", "dog (2)"),
        ("uncertainty", "0.8 to 1.0 bits (2)"),
        ("round", "round 2 (3)"),
        ("nonsense", "dog (2)"),
    ):
        answer = pooled.get(f"/projects/1/pool-map?colour={colour}")
        assert legend in text(answer)
        assert answer.get_data(as_text=True).count("<g data-task=") == len(told["points"]) == 6
    assert "queued (3) labelled (1) unlabelled (2)" in text(pooled.get("/projects/1/pool-map"))


@pytest.mark.parametrize("path", ["", "/queue", "/pool-map", "/comparison"])
def test_of_several_controls_a_page_names_the_one_that_it_goes_by(
    pooled: FlaskClient, path: str
) -> None:
    services = services_of(pooled)
    said = "By the model for thing , one of 2 controls"
    with services.store.reading() as session:
        project = session.scalars(select(Project)).one()
    pool_map.run(make_work(services, project, FakeLabelStudio(), "pool_map"))
    assert said not in text(pooled.get(f"/projects/1{path}"))
    second = add_version(services, project, number=2)
    with services.store.transaction() as session:
        session.add(Savings(project_id=1, version=2, result=ESTIMATE))
        for version in session.scalars(select(ModelVersion)):
            version.control = "light" if version.id == second.id else "thing"
            version.serves = True
    assert said in text(pooled.get(f"/projects/1{path}"))


def test_what_others_wrote_is_only_text(pooled: FlaskClient) -> None:
    for path in ("/projects", *(f"/projects/1{path}" for path in PAGES)):
        body = pooled.get(path).get_data(as_text=True)
        assert "<friends>" not in body
        assert "<script>" not in body
        assert "style=" not in body
        assert "onclick" not in body


def test_an_action_is_done_reported_and_logged(pooled: FlaskClient) -> None:
    answer = pooled.post("/projects/1/actions/train")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/projects/1")
    assert "Job 1 trains on the current labels." in text(pooled.get("/projects/1"))
    # Once: what is loaded next has nothing to say.
    assert "Job 1 trains on the current labels." not in text(pooled.get("/projects/1"))
    assert jobs_of(services_of(pooled)) == [("train", "pending")]
    with services_of(pooled).store.reading() as session:
        assert session.scalars(select(Event.text)).all() == [
            "Training requested by somebody at 127.0.0.1"
        ]


def test_who_did_it_is_who_gave_the_password(tmp_path: Path) -> None:
    browser = make_browser(tmp_path, BASIC_AUTH_USER="ann", BASIC_AUTH_PASS="p")
    add_project(services_of(browser))
    browser.post("/projects/1/actions/pause", auth=("ann", "p"))
    with services_of(browser).store.reading() as session:
        assert session.scalars(select(Event.text)).all() == ["Paused by ann"]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/projects/1/actions/resume", 409, "Project 1 is not paused."),
        ("/projects/1/actions/dance", 404, "There is no such action."),
        ("/projects/9/actions/train", 404, "There is no project 9."),
        ("/projects/1/actions/cancel", 400, "Which job?"),
        ("/projects/1/first", 409, "None of these images can be queued"),
    ],
)
def test_impossible_actions_are_explained_on_a_page(
    pooled: FlaskClient, path: str, status: int, words: str
) -> None:
    answer = pooled.post(path)
    assert answer.status_code == status
    assert answer.content_type.startswith("text/html")
    assert words in html.unescape(answer.get_data(as_text=True))


@pytest.mark.parametrize("number", [-1, 10**30, "x", "1" * 5000])
def test_a_number_beyond_any_database_is_requested_again(
    pooled: FlaskClient, number: object
) -> None:
    for name, field in (("cancel", "job"), ("retry", "job"), ("roll-back", "version")):
        answer = pooled.post(f"/projects/1/actions/{name}", data={field: number})
        assert answer.status_code == 400
        assert f"Which {field}? Go back and choose one." in answer.get_data(as_text=True)
        assert pooled.get(f"/projects/1/confirm/{name}?{field}={number}").status_code == 200


def test_the_queue_ends(pooled: FlaskClient) -> None:
    assert "The queue ends before this page." in text(
        pooled.get(f"/projects/1/queue?from={10**30}")
    )


def test_a_selector_may_be_compared_with_itself(pooled: FlaskClient) -> None:
    answer = pooled.post("/projects/1/comparison", data={"a": "entropy", "b": "entropy"})
    assert answer.status_code == 303
    assert pooled.get(answer.headers["Location"]).status_code == 200


def test_another_sites_page_can_do_nothing(pooled: FlaskClient) -> None:
    answer = pooled.post("/projects/1/actions/train", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert jobs_of(services_of(pooled)) == []


def test_an_unknown_project_has_no_page(browser: FlaskClient) -> None:
    answer = browser.get("/projects/7")
    assert answer.status_code == 404
    assert "There is no project 7 here." in html.unescape(answer.get_data(as_text=True))


def test_what_is_to_be_typed_is_set_apart_in_a_settings_help(pooled: FlaskClient) -> None:
    text = pooled.get("/projects/1/settings").text
    assert "<code>image_size</code>" in text
    assert "`" not in text


def test_wrong_settings_are_explained_beside_their_fields(pooled: FlaskClient) -> None:
    answer = pooled.post("/projects/1/settings", data={"budget": "0", "seed": "3"})
    assert answer.status_code == 400
    body = html.unescape(answer.get_data(as_text=True))
    assert 'Setting "budget" must be at least 1, not 0.' in body
    # What was typed is still there to be mended.
    assert 'name="budget" value="0"' in body
    assert 'name="seed" value="3"' in body
    assert body.count('aria-invalid="true"') == 1


def test_settings_that_are_nested_too_deeply_are_refused(pooled: FlaskClient) -> None:
    answer = pooled.post("/projects/1/settings", data={"classes": "[" * 5000})
    assert answer.status_code == 400
    assert "Nothing was changed" in answer.text


def test_an_unavailable_thumbnail_is_a_drawing(pooled: FlaskClient) -> None:
    answer = pooled.get("/projects/1/tasks/99/thumbnail")
    assert (answer.status_code, answer.content_type) == (404, "image/svg+xml")
    assert pooled.get("/projects/7/tasks/1/thumbnail").status_code == 404


def test_the_folder_of_thumbnails_is_looked_through_once(
    browser: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[DiskCache] = []
    monkeypatch.setattr(DiskCache, "_sweep", lambda cache: looks.append(cache))
    services = services_of(browser)
    add_tasks(services, add_project(services), [1, 2, 3], image=picture())
    for task in (1, 2, 3, 1):
        answer = browser.get(f"/projects/1/tasks/{task}/thumbnail")
        assert (answer.status_code, answer.content_type) == (200, "image/webp")
    assert len(looks) == 1


def test_the_nearest_image_may_be_one_that_the_round_drew_at_random(pooled: FlaskClient) -> None:
    with services_of(pooled).store.transaction() as session:
        picks = session.scalars(select(Pick).order_by(Pick.rank)).all()
        picks[0].reason = {"nearest": picks[1].task_id, "classes": {"1": 1.0}}
        picks[1].reason = {"random": True}
    said = text(pooled.get("/projects/1/queue"))
    assert "compared with the nearest image (drawn at random in this round)" in said
    assert "Drawn at random, to measure" in said


def test_before_there_is_a_model_the_queue_says_what_is_typical(browser: FlaskClient) -> None:
    services = services_of(browser)
    project = add_project(services)
    add_tasks(services, project, [1, 2])
    made = add_round(
        services, project, [1, 2], queued=2, selector="typiclust", cold_start="No model yet."
    )
    with services.store.transaction() as session:
        first = session.get_one(Pick, (made.id, 0))
        first.reason, first.score = {"cluster": 31, "covered": 0}, 2.5
    said = text(browser.get("/projects/1/queue"))
    assert "The most typical of 31 similar images" in said
    assert "Typicality 2.50" in said
    assert "Drawn at random" not in said
    assert "class mixture" not in said
    assert "is being computed" not in said
    overview = text(browser.get("/projects/1"))
    assert "Round 1 goes by typical images: No model yet." in overview
    # Nothing has laid out the features yet, which is requested because somebody looks.
    assert "the map is being drawn" in text(browser.get("/projects/1/pool-map"))


def test_the_queue_says_what_an_image_stands_for(pooled: FlaskClient) -> None:
    reasons = [
        {"cluster": 214, "covered": 0},
        {"cluster": 214, "covered": 1},
        {"covers": 31, "cover": 1, "near_duplicate_of": 1},
    ]
    with services_of(pooled).store.transaction() as session:
        picks = session.scalars(select(Pick).order_by(Pick.rank).limit(3))
        for pick, reason in zip(picks, reasons, strict=True):
            pick.reason = reason
    said = text(pooled.get("/projects/1/queue"))
    assert "The most typical of 214 similar images, none of which is labelled." in said
    assert "after 1 that is labelled or earlier in the queue." in said
    assert "It stands for 31 similar images" in said
    assert "It comes last, since it looks nearly the same as task 1 ." in said


def test_the_api_has_what_the_pages_show(pooled: FlaskClient) -> None:
    services = services_of(pooled)
    with services.store.transaction() as session:
        session.add(
            Submission(project_id=1, task_id=1, labelled_at=now(), annotators=[3], seconds=4.0)
        )
        session.add(Savings(project_id=1, version=1, result=ESTIMATE))
        session.get_one(Project, 1).extra_params = {"random_share": 0.25}
        session.add_all(
            Annotation(project_id=1, annotation_id=n, task_id=n, annotator=3, round=2, kept=kept)
            for n, kept in enumerate((1.0, 0.9995, 0.6, 0.5))
        )
        disputed = {"project_id": 1, "task_id": 7, "others": 0.25}
        session.add(Annotation(annotation_id=8, annotator=3, consensus=1.0, **disputed))
        session.add(Annotation(annotation_id=9, annotator=4, consensus=0.25, **disputed))
        doubted = {"round": 2, "kept": 0.0, "confidence": 0.9}
        session.add(Annotation(project_id=1, annotation_id=10, task_id=8, **doubted))
    kept = pooled.get("/api/v1/projects/1").get_json()["rounds"][0]["pre_annotations"]
    assert [kept[name] for name in ("unchanged", "changed", "replaced")] == [2, 1, 2]
    told = pooled.get("/api/v1/projects/1/throughput").get_json()
    assert (told["labels"], told["annotators"][0]["name"]) == (1, "annotator 3")
    assert told["over_time"]["bars"][0]["labels"] == 1
    savings = pooled.get("/api/v1/projects/1/savings").get_json()
    assert (savings["saved"], savings["random"]["labels"]) == (12.0, 40)
    compared = pooled.get("/api/v1/projects/1/comparison?a=entropy&b=core-set").get_json()
    assert [one["name"] for one in compared["selectors"]] == ["entropy", "core-set"]
    said = text(pooled.get("/projects/1"))
    assert "About 12 labels saved against random" in said
    assert "No difference from random is measurable yet" in said
    assert "About 12 labels saved against random: between -3 and 30 with 90% confidence" in said
    assert "a model is trained on the random labels alone" in said
    with services.store.transaction() as session:
        row = session.scalars(select(Savings)).one()
        row.result = {**row.result, "saved": -90.0, "low": -90.0, "at_most": True}
    said = text(pooled.get("/projects/1"))
    assert "At least 90 labels lost against random" in said
    assert "annotator 3 1 4.0 s" in said
    assert "Changed a little Replaced Agreement 2 2 1 2 0.62" in said
    agreement = pooled.get("/api/v1/projects/1/agreement").get_json()
    assert (agreement["tasks"], agreement["agreement"]) == (1, 0.25)
    assert [one["task"] for one in agreement["second_look"]] == [7, 8]
    assert "annotator 3 1 0.25 1.00 annotator 4 1 0.25 0.25" in said
    assert "7 People disagree (0.25). 8 The label contradicts a prediction of conf" in said


def test_the_api_says_what_does_not_exist(browser: FlaskClient) -> None:
    add_project(services_of(browser))
    for path in ("versions/1", "pool-map", "comparison"):
        answer = browser.get(f"/api/v1/projects/1/{path}")
        assert answer.status_code == 404
        assert answer.get_json()["error"]
    assert browser.get("/api/v1/projects/1/savings").get_json()["known"] is False
    assert browser.get("/api/v1/projects/1/comparison?a=nothing").status_code == 400


def test_a_trailing_slash_leads_to_the_page(pooled: FlaskClient) -> None:
    assert pooled.get("/projects/").status_code == 200
    answer = pooled.get("/projects/1/queue/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/projects/1/queue")
    # Whatever is in it, it leads nowhere else.
    answer = pooled.get("/projects///example.com/", follow_redirects=True)
    assert (answer.status_code, answer.request.url) == (
        404,
        "http://localhost/projects/example.com",
    )


@pytest.mark.parametrize(("old", "new"), [("pool", "pool-map"), ("compare", "comparison")])
def test_an_old_address_leads_to_the_page(pooled: FlaskClient, old: str, new: str) -> None:
    answer = pooled.get(f"/projects/1/{old}")
    assert (answer.status_code, answer.headers["Location"]) == (301, f"/projects/1/{new}")


def test_an_unknown_address_is_answered_with_a_page(pooled: FlaskClient) -> None:
    answer = pooled.get("/projects/1/nothing")
    assert (answer.status_code, answer.mimetype) == (404, "text/html")


@pytest.mark.parametrize("page", ["/projects", "/projects/1"])
def test_a_problem_is_shown_with_its_advice(browser: FlaskClient, page: str) -> None:
    with services_of(browser).store.transaction() as session:
        project = session.get_one(Project, add_project(services_of(browser)).id)
        assert project.set_problem("The labels are gone.", 'press "Rescore".')
        assert not project.set_problem("The labels are gone.", 'press "Rescore".')
    shown = text(browser.get(page))
    assert "The labels are gone." in shown
    assert 'What to do: press "Rescore".' in shown
    answer = browser.get("/api/v1/projects/1").get_json()
    assert answer["problem_advice"] == 'press "Rescore".'
    with services_of(browser).store.transaction() as session:
        session.get_one(Project, 1).clear_problem()
    assert "What to do" not in text(browser.get(page))


@pytest.mark.parametrize("page", ["", "/settings"])
def test_links_lead_where_people_reach_label_studio(tmp_path: Path, page: str) -> None:
    """Without a password, anybody could have given that address in a call of `/setup`."""
    public = "https://ls.example.com/ls"
    login = basic("ann", "pass-word")
    for number, given in enumerate(
        ({}, {"BASIC_AUTH_USER": "ann", "BASIC_AUTH_PASS": "pass-word"})
    ):
        browser = make_browser(tmp_path / str(number), **given)
        add_project(services_of(browser), public_url=public)
        said = browser.get(f"/projects/1{page}", headers=login).get_data(as_text=True)
        home = public if given else URL
        assert f'"{home}/projects/12' in said
        assert (f'"{public}' in said) == bool(given)
