"""Going on with a data folder of the last version whose database had no migrations.

`before_migrations` was written by that version: the database as SQL, and the scores of its pool.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, text
from support.offline import FakeLabelStudio, jobs_of, make_browser, pick_states, services_of

from cdal.backend.loop.runner import run_job
from cdal.backend.services import Services
from cdal.backend.settings import ProjectSettings
from cdal.backend.store.engine import open_engine
from cdal.backend.store.leftovers import remove_leftovers
from cdal.backend.store.schema import scripts
from cdal.backend.store.tables import (
    Annotator,
    Comparison,
    Event,
    Job,
    ModelVersion,
    Prediction,
    Project,
    RandomLabel,
    Round,
    Savings,
    Submission,
    Task,
)

OLD = Path(__file__).parent / "before_migrations"


@pytest.fixture
def browser(tmp_path: Path, database_url: str) -> Iterator[FlaskClient]:
    """The web application, opened on the old data."""
    folder = tmp_path / "data"
    shutil.copytree(OLD, folder)
    statements = (folder / "cdal.sql").read_text()
    (folder / "cdal.sql").unlink()
    if database_url.startswith("sqlite"):
        with closing(sqlite3.connect(folder / "cdal.sqlite")) as database:
            database.executescript(statements)
        opened = make_browser(folder)
    else:
        fill_postgresql(database_url, statements)
        opened = make_browser(folder, database_url=database_url)
    yield opened
    services_of(opened).store.close()


def fill_postgresql(url: str, statements: str) -> None:
    """The same rows in tables that the old version would have made there."""
    lines = statements.splitlines()
    engine = open_engine(url)
    tables = scripts().get_revision("0001").module.BASELINE
    with engine.begin() as connection:
        tables.create_all(connection)
        for table in tables.sorted_tables:
            for line in lines:
                if line.startswith(f'INSERT INTO "{table.name}"'):
                    connection.exec_driver_sql(line)
            if "id" in table.columns:
                last = f"(SELECT max(id) FROM {table.name})"
                sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
                connection.execute(text(f"SELECT setval({sequence}, {last})"))
    engine.dispose()


@pytest.fixture
def services(browser: FlaskClient) -> Services:
    return services_of(browser)


@pytest.fixture
def label_studio(monkeypatch: pytest.MonkeyPatch) -> FakeLabelStudio:
    """The project as it was left: tasks 1 to 4 are labelled."""
    fake = FakeLabelStudio()
    fake.add_tasks(range(1, 13))
    for task_id in range(1, 5):
        fake.label(task_id)
    fake.serve("CDAL round 2.1")
    fake.import_predictions(
        [
            {"task": task_id, "model_version": "CDAL round 2.1", "score": rank / 10, "result": []}
            for rank, task_id in enumerate((9, 7, 8))
        ]
    )
    monkeypatch.setattr(Services, "client", lambda *_: fake)
    return fake


def test_every_row_is_kept_under_todays_names(services: Services) -> None:
    with services.store.reading() as session:
        project = session.scalars(select(Project)).one()
        assert (project.title, project.queue_version, project.view_id) == (
            "Pets",
            "CDAL round 2.1",
            7,
        )
        settings = ProjectSettings.parse(project.extra_params)
        assert (settings.budget, settings.reserve, settings.random_share) == (3, 2, 0.2)
        versions = session.scalars(select(ModelVersion).order_by(ModelVersion.number)).all()
        assert [(v.number, v.labels, v.promoted) for v in versions] == [(1, 2, True), (2, 4, True)]
        assert [(v.control, v.serves) for v in versions] == [("", False), ("", True)]
        assert versions[1].started_from == versions[0].id
        rounds = session.scalars(select(Round).order_by(Round.number)).all()
        assert [(r.number, r.state, r.selector, r.labels) for r in rounds] == [
            (1, "closed", "random", 2),
            (2, "open", "cdal-cs", 4),
        ]
        assert rounds[1].seconds == {"score": 1.0, "select": 0.1, "queue": 0.2}
        compared = session.scalars(select(Comparison).order_by(Comparison.selector)).all()
        assert [(c.selector, c.task_ids) for c in compared] == [
            ("entropy", [12, 9, 7, 8, 10, 11]),
            ("margin", None),
        ]
        saved = session.scalars(select(Savings)).one()
        assert (saved.version, saved.result["known"]) == (2, False)
        counted = {
            table: len(session.scalars(select(table)).all())
            for table in (Task, Submission, Annotator, RandomLabel, Prediction, Event)
        }
        assert list(counted.values()) == [12, 4, 1, 2, 3, 2]
        worded = session.scalars(select(Event.text).order_by(Event.id)).all()
        assert worded[0] == "Round 2 is open."
    assert pick_states(services, rounds[1]) == {
        9: "queued",
        7: "queued",
        8: "queued",
        12: "ranked",
        10: "ranked",
    }
    assert jobs_of(services) == [
        ("sync", "done"),
        ("train", "done"),
        ("savings", "done"),
        ("comparison", "done"),
        ("pool_map", "failed"),
        ("comparison", "pending"),
        ("pool_map", "pending"),
        ("savings", "pending"),
    ]


def test_the_pages_show_it(browser: FlaskClient) -> None:
    for page in ("", "/projects/1", "/projects/1/queue", "/projects/1/comparison"):
        answer = browser.get(f"/{page.lstrip('/')}")
        assert answer.status_code == 200, page
    queue = browser.get("/api/v1/projects/1/queue").get_json()
    assert [pick["task"] for pick in queue["picks"]][:3] == [9, 7, 8]
    status = browser.get("/api/v1/projects/1").get_json()
    assert (status["labelled"], status["tasks"], status["serving_version"]) == (4, 12, 2)


def test_the_jobs_that_waited_are_done_and_the_loop_goes_on(
    services: Services, label_studio: FakeLabelStudio
) -> None:
    for job_id in (6, 7, 8):
        run_job(services, job_id, lambda: False)
    assert jobs_of(services)[5:] == [
        ("comparison", "done"),
        ("pool_map", "done"),
        ("savings", "done"),
    ]
    with services.store.reading() as session:
        ordered = session.get_one(Comparison, (2, "margin")).task_ids
        assert ordered is not None
        assert len(ordered) == 5  # as many as the round ranked
        assert set(ordered) <= {7, 8, 9, 10, 11, 12}
        assert len(session.scalars(select(Savings)).all()) == 2
        assert session.get_one(Job, 7).outcome == "11 of 11 images laid out"
    label_studio.label(9, at="2026-02-01T00:00:00Z")
    job_id = services.jobs.ask(1, "sync", "test")
    assert job_id == 9
    run_job(services, job_id, lambda: False)
    with services.store.reading() as session:
        assert session.get_one(Job, job_id).error is None
        assert session.get_one(Task, (1, 9)).annotations == 1
    assert label_studio.stream()[:3] == [9, 7, 8]


def test_folders_under_old_names_are_removed(services: Services) -> None:
    project = services.config.project_folder(1)
    for name in ("maps", "yardstick"):
        (project / name).mkdir()
    assert remove_leftovers(services.config, services.store) == 2
    assert [path.name for path in project.iterdir()] == ["scores"]
