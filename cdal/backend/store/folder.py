"""The data folder: checked before anything runs on it."""

from __future__ import annotations

import errno
import logging
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from cdal.backend.config import ServerConfig
from cdal.backend.errors import DataFolderError
from cdal.backend.store import schema
from cdal.backend.store.database import Store
from cdal.backend.store.engine import open_engine
from cdal.backend.store.failures import STORAGE, storage_problem
from cdal.backend.store.sqlite_file import OTHERS, is_sound, make_private
from cdal.durable import sync_file, sync_folder

log = logging.getLogger(__name__)


NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of file systems that have no hard links."""


def check_data_folder(config: ServerConfig) -> None:
    """Check that the folder can be written, and upgrade the database to this version.

    Other users of the machine may read neither from now on.

    Raises:
        DataFolderError: one of them cannot be used; the message says what to do.
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
    _make_private(folder)
    if config.database_url is None:
        _check_sqlite(folder / "cdal.sqlite")
    # It holds messages only, and what they say is in the store too.
    if not is_sound(config.jobs_file):
        for file in folder.glob(f"{config.jobs_file.name}*"):
            file.unlink()
    with _faults_in_a_sentence(config):
        Store(config.store_url).close()


def folder_id(folder: Path) -> str:
    """What tells this data folder from others, on whatever machine it is mounted.

    Raises:
        DataFolderError: the folder's file system lacks what workers need; the message says what.
    """
    file = folder / "folder-id"
    if not file.exists():
        new = folder / f"folder-id-{uuid.uuid4().hex}"
        new.write_text(uuid.uuid4().hex)
        try:
            sync_file(new)  # a power loss must not leave a name without an id
            with suppress(FileExistsError):
                os.link(new, file)  # whole or not at all, and the first one counts
            sync_folder(folder)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            raise DataFolderError(
                f"The file system of the data folder {folder} has no hard links, as that of a "
                "mounted bucket; set MODEL_DIR to a folder on another one."
            ) from None
        finally:
            new.unlink()
    return file.read_text()


def _make_private(folder: Path) -> None:
    """Close the folder to other users, also if somebody else has created it."""
    mode = folder.stat().st_mode
    if mode & OTHERS:
        try:
            if mode & stat.S_ISVTX:  # a folder for everybody, such as /tmp
                raise PermissionError
            folder.chmod(0o700)
        except OSError:
            log.warning(
                "Other users of this machine may open the data folder %s; give the backend a "
                "folder of its own (MODEL_DIR), with mode 0700.",
                folder,
            )
    for database in folder.glob("*.sqlite"):
        make_private(database)


def check_database(config: ServerConfig) -> None:
    """Check that the database can be used and is up to date, without changing it.

    Raises:
        DataFolderError: it cannot or is not; the message says what to do.
    """
    with _faults_in_a_sentence(config):
        engine = open_engine(config.store_url)
        try:
            schema.check(engine)
        finally:
            engine.dispose()


def _check_sqlite(file: Path) -> None:
    if not is_sound(file):
        raise DataFolderError(
            f"The database {file} is damaged; move it away and restore a backup, as "
            "docs/operations.md says."
        )


@contextmanager
def _faults_in_a_sentence(config: ServerConfig) -> Iterator[None]:
    try:
        yield
    except (ArgumentError, ValueError):  # an impossible address, a port that is not a number
        raise DataFolderError(
            "CDAL_DATABASE_URL is not the address of a database that can be used, such as "
            "postgresql://user:password@host/name."
        ) from None
    except STORAGE as error:
        if config.database_url is None or not isinstance(error, DBAPIError):
            raise DataFolderError(storage_problem(error)) from None
        where = make_url(config.store_url).set(query={}).render_as_string(hide_password=True)
        reason = (str(error.orig).strip().splitlines() or [type(error).__name__])[0]
        raise DataFolderError(
            f"The database of CDAL_DATABASE_URL cannot be opened, {where}: {reason}"
        ) from None
