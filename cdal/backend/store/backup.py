"""Backups of the data folder, taken while web process and worker run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from cdal.backend.config import ServerConfig
from cdal.backend.errors import BackupError
from cdal.backend.store.database import Store
from cdal.backend.store.failures import STORAGE
from cdal.backend.store.folder import check_database
from cdal.backend.store.sqlite_file import copy_database
from cdal.backend.store.tables import ModelVersion
from cdal.durable import put_tree_in_place
from cdal.models import ModelError, check_weights

DATABASE = "cdal.sqlite"


def back_up(config: ServerConfig, target: Path) -> int:
    """Copy database, weights and scores to a new folder.

    The database is copied first, as of one moment; the files that it names existed before it named
    them, and never change. Fetched images, features and messages are left out. A database that
    CDAL_DATABASE_URL names is not copied; its own tools must have done so before.

    Args:
        config: the running backend's configuration.
        target: the folder to create; it appears once it is complete.

    Returns:
        The number of model versions in the backup.

    Raises:
        BackupError: there is no data folder, or the target cannot be written.
        DataFolderError: the database cannot be used, or is not of this version.
    """
    if target.exists():
        raise BackupError(f"{target} exists; a backup needs a new folder.")
    if config.database_url is None and not (config.data_folder / DATABASE).exists():
        raise BackupError(f"There is no database in the data folder {config.data_folder}.")
    check_database(config)
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True, mode=0o700)
        copied = _copy(config, unfinished)
        put_tree_in_place(unfinished, target)
    except STORAGE as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise BackupError(f"The backup could not be written: {cause}.") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return copied


def _copy(config: ServerConfig, folder: Path) -> int:
    copy = config.model_copy(update={"data_folder": folder})
    if config.database_url is None:
        copy_database(config.data_folder / DATABASE, folder / DATABASE)
    store = Store(copy.store_url)
    copied = 0
    try:
        for project_id, number, serves in _versions(store):
            weights = copy.version_folder(project_id, number)
            _copy_folder(config.version_folder(project_id, number), weights)
            _copy_folder(
                config.scores_folder(project_id, number), copy.scores_folder(project_id, number)
            )
            copied += weights.exists()
            if serves:
                check_weights(weights)
    except ModelError as error:
        raise BackupError(f"A model that serves could not be backed up: {error}") from None
    finally:
        store.close()
    return copied


def _versions(store: Store) -> Iterator[tuple[int, int, bool]]:
    """Project id, number, and whether it serves, for every model version."""
    with store.reading() as session:
        for version in session.scalars(select(ModelVersion)):
            yield version.project_id, version.number, version.serves


def _copy_folder(source: Path, target: Path) -> None:
    """Copy the finished files of a folder, or nothing if it is being pruned at this moment."""
    files = [file for file in source.glob("*") if file.suffix != ".unfinished"]
    for file in files:
        target.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(file, target / file.name)
        except FileNotFoundError:
            shutil.rmtree(target)
            return
