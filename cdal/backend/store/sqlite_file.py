"""A SQLite database as a file: who may read it, whether it is sound, and copies of it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from cdal.durable import put_in_place

OTHERS = 0o077
"""The permissions of everyone but the owner."""


def make_private(file: Path) -> None:
    """Let only the owner of a database and of its journals read them; create it if it is missing.

    SQLite gives new journals the permissions of the database.
    """
    # Opening and closing an existing one would release the locks that this process holds on it.
    with suppress(OSError):  # a folder that is missing or read-only: connecting says so
        if not file.exists():
            file.touch(0o600)
    for path in (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")):
        with suppress(OSError):  # there is none, or it belongs to somebody else
            mode = path.stat().st_mode
            if mode & OTHERS:
                path.chmod(mode & 0o7777 & ~OTHERS)


def use_wal(cursor: sqlite3.Cursor) -> None:
    """Make a database keep a write-ahead log, unless it does so already.

    Where two connections switch at once, SQLite refuses one of them without waiting for
    `busy_timeout`; so they take turns.
    """
    if cursor.execute("PRAGMA journal_mode").fetchall() == [("wal",)]:
        return
    ((_, _, file),) = cursor.execute("PRAGMA database_list").fetchall()
    if not file:  # a database in memory has no log
        return
    folder = os.open(Path(file).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        cursor.execute("PRAGMA journal_mode=WAL").fetchall()
    finally:
        os.close(folder)


def is_sound(file: Path) -> bool:
    """Whether a database can be read from beginning to end; one that does not exist is sound."""
    if not file.exists():
        return True
    try:
        with closing(sqlite3.connect(file, timeout=30)) as database:
            return bool(database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.OperationalError:  # it is locked, or the disk fails: not damage
        return True
    except sqlite3.DatabaseError:
        return False


def copy_database(file: Path, target: Path) -> None:
    """Copy a database as of one moment, also while others use it.

    The copy is on the disk, complete and with the permissions of the original, before it gets its
    name. An earlier copy of that name is replaced.

    Raises:
        sqlite3.Error: the database cannot be read, or the copy cannot be written.
        OSError: the copy cannot be written.
    """
    unfinished = target.with_name(f"{target.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        unfinished.touch(file.stat().st_mode & 0o777)
        with (
            closing(sqlite3.connect(file, timeout=30)) as source,
            closing(sqlite3.connect(unfinished)) as copy,
        ):
            source.backup(copy)
        put_in_place(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
