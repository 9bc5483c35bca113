"""The data folder: checked before anything runs on it."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from cdal.backend.config import ServerConfig
from cdal.backend.storage import storage_problem
from cdal.backend.store import Store


class DataFolderError(Exception):
    """Nothing can run on the data folder or the database; the message is a sentence."""


def check_data_folder(config: ServerConfig) -> None:
    """Check that the folder can be written and that the database can be used.

    Raises:
        DataFolderError: one of them cannot; the message says what to do.
    """
    folder = config.data_folder
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0" * 4096)
            probe.flush()
    except OSError as error:
        raise DataFolderError(
            f"The data folder {folder} cannot be written: {error.strerror}."
        ) from None
    if config.database_url is None:
        _check_sqlite(folder / "cdal.sqlite")
    # It holds messages alone, and what they say is in the store too.
    if not _is_sound(config.jobs_file):
        for file in folder.glob(f"{config.jobs_file.name}*"):
            file.unlink()
    check_database(config)


def _check_sqlite(file: Path) -> None:
    if not _is_sound(file):
        raise DataFolderError(
            f"The database {file} is damaged; move it away and restore a backup, as "
            "docs/operations.md says."
        )


def _is_sound(file: Path) -> bool:
    """Whether a SQLite database can be read from beginning to end; so can one that is not there."""
    if not file.exists():
        return True
    try:
        with closing(sqlite3.connect(file, timeout=30)) as database:
            return bool(database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.OperationalError:  # locked, or the disk: no damage
        return True
    except sqlite3.DatabaseError:
        return False


def check_database(config: ServerConfig) -> None:
    """Check that the database can be used.

    Raises:
        DataFolderError: it cannot; the message says what to do.
    """
    try:
        Store(config.store_url).close()
    except (ArgumentError, ValueError):  # an address without sense, a port that is no number
        raise DataFolderError(
            "CDAL_DATABASE_URL is no address of a database that can be used, such as "
            "postgresql://user:password@host/name."
        ) from None
    except DBAPIError as error:
        if config.database_url is None:
            raise DataFolderError(storage_problem(error)) from None
        where = make_url(config.store_url).set(query={}).render_as_string(hide_password=True)
        reason = (str(error.orig).strip().splitlines() or [type(error).__name__])[0]
        raise DataFolderError(
            f"The database of CDAL_DATABASE_URL cannot be opened, {where}: {reason}"
        ) from None
