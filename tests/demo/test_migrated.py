"""The migrated database, with a program in Label Studio's place that makes one of one table."""

from __future__ import annotations

import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from cdal.demo import migrated
from cdal.demo.migrated import DATABASE, cache_folder, copy_migrated

PROGRAM = """
import os, pathlib, sqlite3, sys
assert sys.argv[1:] == ["version"]
folder = pathlib.Path(os.environ["LABEL_STUDIO_BASE_DATA_DIR"])
(folder / ".env").write_text("SECRET_KEY=one")
with pathlib.Path(os.environ["RUNS"]).open("a") as file:
    file.write("run\\n")
database = sqlite3.connect(folder / "label_studio.sqlite3")
database.execute("PRAGMA journal_mode=wal")
database.execute("CREATE TABLE task (id)")
database.commit()
print("migrated", flush=True)
if "FAIL" in os.environ:
    os._exit(1)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "label-studio-cdal"


def copy(tmp_path: Path, name: str, **environment: str) -> Path:
    """Have the data folder of this name given a database; returns the database's path."""
    environment = {"RUNS": str(tmp_path / "runs"), **environment}
    program = [sys.executable, "-c", PROGRAM]
    copy_migrated(tmp_path / name, program, environment, tmp_path / "log")
    return tmp_path / name / DATABASE


def tables(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as opened:
        return [name for (name,) in opened.execute("SELECT name FROM sqlite_master")]


def runs(tmp_path: Path) -> int:
    return (tmp_path / "runs").read_text().count("run")


def test_servers_get_copies_of_one_database(tmp_path: Path, cache: Path) -> None:
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda name: copy(tmp_path, name), ["one", "two", "three"]))
    assert [tables(database) for database in made] == [["task"]] * 3
    assert runs(tmp_path) == 1
    assert "migrated" in (tmp_path / "log").read_text()
    # The database alone: keys are each server's own, and nothing unfinished stays behind.
    assert [path.name for path in (tmp_path / "one").iterdir()] == [DATABASE]
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".sqlite3"]


def test_another_version_gets_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy(tmp_path, "one")
    monkeypatch.setattr(migrated, "version", lambda _: "99.0.0")
    copy(tmp_path, "two")
    assert runs(tmp_path) == 2


def test_a_folder_in_use_keeps_its_database(tmp_path: Path) -> None:
    database = tmp_path / "used" / DATABASE
    database.parent.mkdir()
    database.write_bytes(b"projects")
    copy(tmp_path, "used")
    assert database.read_bytes() == b"projects"


def test_without_a_copy_label_studio_migrates_by_itself(tmp_path: Path) -> None:
    assert not copy(tmp_path, "one", FAIL="1").exists()
    assert "No migrated database" in (tmp_path / "log").read_text()
    assert tables(copy(tmp_path, "one")) == ["task"]  # the failure was not kept


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    assert not copy(tmp_path, "one").exists()


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert cache_folder() == cache
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard says to ignore
    assert cache_folder() == Path.home() / ".cache" / "label-studio-cdal"
