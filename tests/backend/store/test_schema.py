"""The schema of the database: migrations, who runs them, and what is kept from before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Engine, MetaData, Table, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from support.offline import make_config

from cdal.backend.errors import DataFolderError
from cdal.backend.store.database import Store
from cdal.backend.store.engine import open_engine
from cdal.backend.store.folder import check_data_folder, check_database
from cdal.backend.store.schema import MIGRATIONS, newest_revision, scripts, upgrade
from cdal.backend.store.tables import Base, ClassMetrics, ModelVersion, Project, Task, now

# The columns of the very first version, which added others later without migrations.
FIRST = {
    "projects": "id uid label_studio_id url access_token title labeling_config extra_params "
    "serving_version_id queue_version view_id changes_seen training_labels problem created_at",
    "events": "id project_id level text created_at",
    "jobs": "id project_id kind state asked_by progress message outcome error attempts not_before "
    "created_at started_at finished_at",
    "model_versions": "id project_id number architecture classes fingerprint labels metrics "
    "serving_metrics promoted verdict seconds created_at",
    "tasks": "project_id task_id image annotations skips image_problem",
    "predictions": "model_version_id task_id finding",
    "rounds": "id project_id number model_version_id state selector cold_start budget seed labels "
    "training_asked editions queue_version warnings report seconds created_at opened_at closed_at",
    "picks": "round_id rank task_id state score reason",
}
PROJECT = (
    "INSERT INTO projects (id, uid, label_studio_id, url, title, labeling_config, extra_params, "
    "training_labels, created_at) "
    "VALUES (1, '12.1', 12, 'http://ls', 'Pets', '', 'null', 0, '2026-01-01')"
)


def baseline() -> MetaData:
    """The tables of the last version without migrations."""
    metadata: MetaData = scripts().get_revision("0001").module.BASELINE
    return metadata


def first_version() -> MetaData:
    """The tables of the very first version."""
    metadata = MetaData()
    for name, columns in FIRST.items():
        whole = baseline().tables[name]
        kept = [whole.columns[column] for column in columns.split()]
        copied = [Column(c.name, c.type, primary_key=c.primary_key) for c in kept]
        Table(name, metadata, *copied)
    return metadata


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database that is still empty."""
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


def fill(engine: Engine, tables: MetaData) -> None:
    """Make the tables of an earlier version, with a project."""
    with engine.begin() as connection:
        tables.create_all(connection)
        connection.execute(text(PROJECT))


def revision_of(engine: Engine) -> str | None:
    with engine.begin() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def titles(url: str) -> list[str]:
    opened = open_engine(url)
    with opened.begin() as connection:
        found = connection.execute(text("SELECT title FROM projects")).scalars().all()
    opened.dispose()
    return list(found)


def test_the_models_are_what_the_migrations_make(engine: Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_migrations_are_numbered_in_a_line() -> None:
    found = [script.revision for script in scripts().walk_revisions()]
    assert found == [f"{number:04}" for number in range(len(found), 0, -1)]
    files = sorted(file.name for file in (MIGRATIONS / "versions").glob("*.py"))
    assert [name.split("_")[0] for name in files] == [f"r{revision}" for revision in found[::-1]]


def test_what_was_measured_of_each_class_goes_apart(engine: Engine) -> None:
    """With 500 classes and 50 versions, every page read 150 MB of it."""
    fill(engine, baseline())
    overall = {"main_name": "accuracy", "values": {"accuracy": 0.5}, "images": 4}
    per_class = {"cat": {"count": 2, "score": 1.0}, "dog": {"count": 2, "score": 0.0}}
    metrics = {**overall, "per_class": per_class, "confusion": [[2, 0], [2, 0]]}
    values = {
        "project_id": 1,
        "architecture": "resnet18",
        "classes": ["cat", "dog"],
        "fingerprint": "f",
        "labels": 4,
        "promoted": True,
        "verdict": "serves",
        "seconds": 1.0,
        "created_at": now(),
    }
    versions = baseline().tables["model_versions"]
    with engine.begin() as connection:
        connection.execute(
            versions.insert(),
            [
                {**values, "id": 1, "number": 1, "metrics": {}, "serving_metrics": None},
                {**values, "id": 2, "number": 2, "metrics": metrics, "serving_metrics": metrics},
            ],
        )
    upgrade(engine)
    store = Store(engine.url.render_as_string(hide_password=False))
    with store.reading() as session:
        first, second = session.query(ModelVersion).order_by(ModelVersion.number)
        assert (first.metrics, first.serving_metrics) == ({}, None)
        assert (second.metrics, second.serving_metrics) == (overall, overall)
        (moved,) = session.query(ClassMetrics)
        assert (moved.model_version_id, moved.per_class, moved.columns) == (2, per_class, 2)
        assert moved.cells == [[0, 0, 2], [1, 0, 2]]
    store.close()


@pytest.mark.parametrize("tables", [baseline, first_version])
def test_a_database_without_migrations_is_adopted(engine: Engine, tables: object) -> None:
    assert callable(tables)
    fill(engine, tables())
    store = Store(engine.url.render_as_string(hide_password=False))
    with store.reading() as session:
        project = session.get_one(Project, 1)
        assert (project.title, project.paused_at, project.extra_params) == ("Pets", None, None)
    assert revision_of(engine) == newest_revision()
    store.close()


def test_what_refers_to_projects_stays_when_their_key_changes(engine: Engine) -> None:
    """SQLite builds their table again."""
    with engine.begin() as connection:
        baseline().create_all(connection)
        connection.execute(text(PROJECT))
        connection.execute(text(PROJECT.replace("(1, '12.1'", "(7, '13.1'")))
        connection.execute(text("DELETE FROM projects WHERE id = 7"))
        if engine.dialect.name == "postgresql":  # it has not numbered these itself
            connection.execute(text("SELECT setval('projects_id_seq', 7)"))
        connection.execute(
            text("INSERT INTO tasks (project_id, task_id, image, annotations, skips) "
                 "VALUES (1, 5, '\"x\"', 0, 0)")
        )  # fmt: skip
    upgrade(engine)
    store = Store(engine.url.render_as_string(hide_password=False))
    with store.transaction() as session:
        assert [task.project_id for task in session.query(Task)] == [1]
        values = {"label_studio_id": 12, "labeling_config": "", "extra_params": None}
        copied = Project(uid="12.1", url="http://copy", **values)
        session.add(copied)
        session.flush()
        assert copied.id == 8  # and not 7 again
    with pytest.raises(IntegrityError), store.transaction() as session:
        session.add(Project(uid="12.1", url="http://copy", **values))
    with pytest.raises(IntegrityError), store.transaction() as session:
        session.add(Task(project_id=99, task_id=1, image="x"))
    store.close()


def test_one_of_many_migrates_and_the_others_find_it_done(engine: Engine) -> None:
    """Without a lock, two would make the same table, and one would fail."""
    fill(engine, baseline())
    barrier = threading.Barrier(4)

    def open_store() -> None:
        barrier.wait()
        Store(engine.url.render_as_string(hide_password=False)).close()

    with ThreadPoolExecutor(4) as pool:
        for opened in [pool.submit(open_store) for _ in range(4)]:
            opened.result()
    assert revision_of(engine) == newest_revision()


def test_a_migration_that_fails_changes_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        baseline().tables["projects"].create(connection)
        connection.execute(text(PROJECT))
        # The migration will make some tables, then an index of this name.
        connection.execute(text("CREATE INDEX ix_rounds_project_id ON projects (title)"))
    with pytest.raises(DBAPIError, match="ix_rounds_project_id"):
        upgrade(engine)
    assert inspect(engine).get_table_names() == ["projects"]
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_rounds_project_id"))
    upgrade(engine)
    assert revision_of(engine) == newest_revision()


def test_a_newer_database_is_refused(engine: Engine, tmp_path: Path) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    url = engine.url.render_as_string(hide_password=False)
    config = make_config(tmp_path / "data", database_url=url)
    for use in (check_data_folder, check_database):
        with pytest.raises(DataFolderError) as caught:
            use(config)
        for part in ("newer version", "9999", str(newest_revision()), "docs/operations.md"):
            assert part in str(caught.value)
    assert revision_of(engine) == "9999"


def test_commands_do_not_upgrade_what_a_backend_may_be_using(
    engine: Engine, tmp_path: Path
) -> None:
    fill(engine, baseline())
    url = engine.url.render_as_string(hide_password=False)
    config = make_config(tmp_path / "data", database_url=url)
    with pytest.raises(DataFolderError, match="start the backend"):
        check_database(config)
    assert revision_of(engine) is None
    check_data_folder(config)  # as every start does
    check_database(config)


def test_a_copy_from_before_is_kept_beside_the_file(tmp_path: Path) -> None:
    """It has what was committed, though SQLite still keeps it in a file of its own."""
    config = make_config(tmp_path)
    old = open_engine(config.store_url)
    fill(old, baseline())
    (tmp_path / "cdal.sqlite").chmod(0o600)
    assert (tmp_path / "cdal.sqlite-wal").stat().st_size > 0
    check_data_folder(config)
    old.dispose()
    copy = tmp_path / "cdal-0000.sqlite"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cdal-0000.sqlite", "cdal.sqlite"]
    assert copy.stat().st_mode & 0o777 == 0o600  # it holds tokens
    assert titles(f"sqlite:///{copy}") == ["Pets"]
    kept = open_engine(f"sqlite:///{copy}")
    assert revision_of(kept) is None
    kept.dispose()
    before = copy.read_bytes()
    check_data_folder(config)
    assert copy.read_bytes() == before


def test_nothing_is_copied_of_a_new_database(tmp_path: Path) -> None:
    check_data_folder(make_config(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["cdal.sqlite"]


def test_nothing_is_changed_where_the_copy_cannot_be_written(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    old = open_engine(config.store_url)
    fill(old, baseline())
    (tmp_path / "cdal-0000.sqlite").mkdir()
    with pytest.raises(DataFolderError):
        check_data_folder(config)
    assert revision_of(old) is None
    old.dispose()
    assert not list(tmp_path.glob("*.unfinished"))
