"""The commands that watch and steer a backend."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from support import forked
from support.offline import (
    add_project,
    add_round,
    add_tasks,
    add_version,
    job_of,
    jobs_of,
    make_services,
    write_network,
)
from support.processes import environment, wait_until

from cdal.backend.admin_cli import NUMBERS
from cdal.backend.config import server_config
from cdal.backend.jobs.workers import present
from cdal.backend.services import Services
from cdal.backend.store.events import note
from cdal.backend.store.tables import Event, Project, Worker, now
from cdal.cli import main


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    """What the environment names, with a project of two images and two model versions."""
    for name in ("CDAL_DATABASE_URL", "LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "ann")
    server_config.cache_clear()
    made = make_services(tmp_path)
    project = add_project(made, title="Pets\x1b[31m\nand more")
    add_tasks(made, project, [1])
    add_tasks(made, project, [2], annotations=1)
    versions = [add_version(made, project, number=number) for number in (1, 2)]
    add_round(made, project, [1], model_version_id=versions[1].id, selector="cdal-cs")
    return made


@pytest.fixture
def cdal(capsys: pytest.CaptureFixture[str]) -> object:
    def run(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_a_problem_is_shown_with_what_can_be_done(services: Services, cdal: object) -> None:
    with services.store.transaction() as session:
        session.get_one(Project, 1).set_problem("Label Studio is away", "start it")
    assert callable(cdal)
    _, out, _ = cdal("status")
    lines = [line.strip() for line in out.splitlines()]
    at = lines.index("problem: Label Studio is away")
    assert lines[at + 1] == "what to do: start it"


def test_status(services: Services, cdal: object) -> None:
    services.jobs.ask(1, "train", "test")
    services.jobs.claim(1)
    services.jobs.report(1, 0.5, "training, epoch 1 of 2")
    services.jobs.ask(1, "sync", "test")
    assert callable(cdal)
    status, out, err = cdal("status")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "No worker is running; start cdal serve or cdal worker."
    assert lines[2:7] == [
        "Project 1: Pets [31m and more (project 12 of http://label-studio.test:8080)",
        "  1 of 2 images labelled",
        "  round 1 is open, by cdal-cs",
        "  model version 1, accuracy 0.750",
        "  model version 2, accuracy 0.750, serves",
    ]
    assert lines[7].startswith("  job 1 (train) 50%, ")
    assert lines[7].endswith(" left: training, epoch 1 of 2")
    assert lines[8] == "  job 2 (sync) is waiting"


def test_the_worker_is_seen(services: Services, cdal: object) -> None:
    assert callable(cdal)
    with present(services.store, "folder"):
        wait_until("heartbeat", lambda: "The worker is running on" in cdal("status")[1])
    assert cdal("status")[1].startswith("No worker is running")
    with services.store.transaction() as session:
        at = now() - timedelta(seconds=100)
        session.add(
            Worker(id=1, host="here", machine="m", folder="f", pid=7, started_at=at, seen_at=at)
        )
    found = re.search(r"last heard from (\d+) s ago", cdal("status")[1])
    assert found is not None
    assert 100 <= int(found[1]) <= (now() - at).total_seconds() + 1


def test_projects_and_jobs(services: Services, cdal: object) -> None:
    assert callable(cdal)
    services.jobs.finish(services.jobs.ask(1, "train", "test"), "failed", error="out of memory")
    add_project(services, uid="13.1", label_studio_id=13)
    assert cdal("projects")[1] == (
        "project  title              labelled  round     model version  state\n"
        "1        Pets [31m and more  1 of 2    1 (open)  2              well\n"
        "2        —                  0 of 0    —         —              well\n"
    ).replace("  labelled", "   labelled").replace("—                  0", "—                   0")
    assert cdal("jobs")[1] == (
        "job  project  kind   state   asked by  what\n"
        "1    1        train  failed  test      out of memory\n"
    )
    assert cdal("jobs", "--state", "done")[1] == "There are no such jobs.\n"


def test_json_is_that_of_the_api(services: Services, cdal: object) -> None:
    assert callable(cdal)
    services.jobs.ask(1, "train", "test")
    assert [job["id"] for job in json.loads(cdal("jobs", "--json")[1])["jobs"]] == [1]
    (project,) = json.loads(cdal("projects", "--json")[1])["projects"]
    assert project["serving_version"] == 2
    assert json.loads(cdal("status", "--json")[1])["worker"]["alive"] is False
    assert json.loads(cdal("cancel", 1, "--json")[1]) == {
        "text": "Job 1 (train) is cancelled.",
        "job": 1,
    }


def test_steering(services: Services, cdal: object) -> None:
    assert callable(cdal)
    assert cdal("retrain", 1) == (0, "Job 1 trains on the current labels.\n", "")
    assert job_of(services, 1).asked_by == "ann on the command line"
    assert cdal("cancel", 1)[1] == "Job 1 (train) is cancelled.\n"
    assert cdal("retry", 1)[1] == "Job 2 repeats job 1 (train).\n"
    assert cdal("rescore", 1)[1] == "A new order of round 1 requested by ann on the command line.\n"
    assert cdal("pause", 1)[1] == (
        "Project 1 is paused: nothing new starts automatically. Job 2 (train) is "
        "waiting. Job 3 (score) is waiting.\n"
    )
    assert cdal("resume", 1)[1] == "Project 1 is resumed; job 4 checks what is due.\n"
    with services.store.reading() as session:
        write_network(services, session.get_one(Project, 1), 1)
    assert cdal("rollback", 1, 1)[1].startswith("Model version 1 serves, by ann on the command ")
    assert [kind for kind, _ in jobs_of(services)] == ["train", "train", "score", "sync"]
    with services.store.reading() as session:
        assert session.scalars(select(Event.text)).first() == (
            "Training requested by ann on the command line"
        )
    assert cdal("forget", 1)[1].startswith("Project 1 is forgotten. What is in Label Studio stays")
    assert cdal("projects")[1] == "No project is connected yet.\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cancel", 9], f"cdal: There is no job 9. {NUMBERS}\n"),
        (["retrain", 9], f"cdal: There is no project 9. {NUMBERS}\n"),
        (["status", "--project", 9], f"cdal: There is no project 9. {NUMBERS}\n"),
        (["jobs", "--project", 9], f"cdal: There is no project 9. {NUMBERS}\n"),
        (["rollback", 1, 7], f"cdal: There is no model version 7 of project 1. {NUMBERS}\n"),
        (["resume", 1], "cdal: Project 1 is not paused.\n"),
    ],
)
def test_what_is_impossible_is_said_and_ends_with_1(
    services: Services, cdal: object, arguments: list[object], sentence: str
) -> None:
    assert callable(cdal)
    assert cdal(*arguments) == (1, "", sentence)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cancel"], "the following arguments are required: JOB"),
        (["cancel", "all"], 'argument JOB: must be a number from 1, not "all"'),
        (["rollback", 1], "the following arguments are required: VERSION"),
        (["jobs", "--state", "odd"], "invalid choice: 'odd'"),
        (["jobs", "--limit", 0], 'must be a number from 1, not "0"'),
    ],
)
def test_wrong_arguments_end_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[object], said: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_without_a_backends_data_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cdal: object
) -> None:
    folder = tmp_path / "none"
    monkeypatch.setenv("MODEL_DIR", str(folder))
    assert callable(cdal)
    assert cdal("status") == (
        1,
        "",
        f"cdal: No backend has data in {folder}; set MODEL_DIR as for the backend.\n",
    )
    assert not folder.exists()


@pytest.mark.slow
def test_as_a_process_of_its_own(services: Services, tmp_path: Path) -> None:
    with services.store.transaction() as session:
        note(session, 1, "something")
    ended = forked.ended(environment(tmp_path), "retrain", 1)
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        0,
        "Job 1 trains on the current labels.\n",
        "",
    )
    assert jobs_of(services) == [("train", "pending")]
    assert len(services.jobs.huey) == 1  # on its way to the worker


@pytest.mark.parametrize(
    ("variables", "status", "said"),
    [
        ({"CDAL_DATABASE_URL": "nonsense"}, 2, "cdal: the environment variable CDAL_DATABASE_URL"),
        (
            {"CDAL_DATABASE_URL": "postgresql://ann:hush@127.0.0.1:9/name"},
            1,
            "cdal: The database of CDAL_DATABASE_URL cannot be opened, "
            "postgresql://ann:***@127.0.0.1:9/name: ",
        ),
        ({"PORT": "many"}, 2, "cdal: the environment variable PORT is wrong"),
    ],
)
def test_what_is_wrong_with_the_environment_is_said(
    services: Services,
    cdal: object,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    status: int,
    said: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert callable(cdal)
    ended, out, err = cdal("status")
    assert (ended, out) == (status, "")
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_a_damaged_database_is_said(services: Services, cdal: object, tmp_path: Path) -> None:
    services.store.close()
    for file in tmp_path.glob("cdal.sqlite*"):
        file.unlink()
    (tmp_path / "cdal.sqlite").write_bytes(b"no database at all, but some text" * 100)
    assert callable(cdal)
    status, out, err = cdal("jobs")
    assert (status, out) == (1, "")
    assert err.startswith("cdal: The database ")
    assert err.count("\n") == 1
