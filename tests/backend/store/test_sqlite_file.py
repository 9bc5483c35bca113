"""A SQLite database as a file: programs that open a new one together."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from cdal.backend.store.sqlite_file import use_wal


def journal_mode(file: Path) -> str:
    with closing(sqlite3.connect(file)) as database:
        return str(database.execute("PRAGMA journal_mode").fetchone()[0])


def test_a_program_that_opens_a_new_database_waits_for_another_that_does(tmp_path: Path) -> None:
    """Of two that switch to a write-ahead log at once, SQLite refuses one without waiting."""
    file = tmp_path / "cdal.sqlite3"
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)

    def open_database() -> None:
        with closing(sqlite3.connect(file)) as database:
            use_wal(database.cursor())

    opening = threading.Thread(target=open_database)
    opening.start()
    opening.join(0.3)
    assert opening.is_alive()
    assert journal_mode(file) == "delete"
    os.close(other)
    opening.join()
    assert journal_mode(file) == "wal"


def test_a_database_that_has_a_log_needs_no_turn(tmp_path: Path) -> None:
    file = tmp_path / "cdal.sqlite3"
    with closing(sqlite3.connect(file)) as database:
        use_wal(database.cursor())
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with closing(sqlite3.connect(file)) as database:
        use_wal(database.cursor())
    os.close(other)


def test_a_database_in_memory_has_no_log() -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        use_wal(database.cursor())
        assert database.execute("PRAGMA journal_mode").fetchone() == ("memory",)
