"""The data folder: checked before anything runs on it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sqlalchemy import delete, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

from cdal.backend.config import ServerConfig
from cdal.backend.errors import DataFolderError
from cdal.backend.store.failures import storage_problem
from cdal.backend.store.store import Store
from cdal.backend.store.tables import (
    Annotator,
    Event,
    Job,
    ModelVersion,
    Pick,
    Prediction,
    Project,
    RandomLabel,
    Ranking,
    Round,
    Submission,
    Task,
    Yardstick,
)


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


def remove_leftovers(config: ServerConfig, store: Store) -> int:
    """Remove them; how many there were.

    To be called while nothing is trained or scored: at the start of the one worker.
    """
    found = list(_leftovers(config, store))
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(found)


def _leftovers(config: ServerConfig, store: Store) -> Iterator[Path]:
    with store.reading() as session:
        projects = {str(number) for number in session.scalars(select(Project.id))}
        pairs = session.execute(select(ModelVersion.project_id, ModelVersion.number)).all()
    known = {(str(project), str(number)) for project, number in pairs}
    for project in (config.data_folder / "projects").glob("*"):
        if project.name not in projects:  # it was being forgotten
            yield project
            continue
        # Unfinished weights are in a folder whose name begins with a dot.
        for folder in [*project.glob("versions/*"), *project.glob("scores/*")]:
            if (project.name, folder.name) not in known:
                yield folder
        for scores in project.glob("scores/*/*.unfinished"):
            if (project.name, scores.parent.name) in known:
                yield scores


OF_A_PROJECT = (
    Annotator,
    Event,
    Job,
    RandomLabel,
    Submission,
    Task,
    Yardstick,
    Round,
    ModelVersion,  # which rounds refer to
)


def forget_rows(session: Session, project_id: int) -> None:
    """Remove a project from the store; none of its jobs may run."""
    rounds = select(Round.id).filter_by(project_id=project_id)
    versions = select(ModelVersion.id).filter_by(project_id=project_id)
    session.execute(delete(Pick).where(Pick.round_id.in_(rounds)))
    session.execute(delete(Ranking).where(Ranking.round_id.in_(rounds)))
    session.execute(delete(Prediction).where(Prediction.model_version_id.in_(versions)))
    for table in OF_A_PROJECT:
        session.execute(delete(table).where(table.project_id == project_id))
    session.execute(delete(Project).where(Project.id == project_id))


def forget_files(config: ServerConfig, project_id: int) -> None:
    """Remove a project's weights and scores; what a kill leaves is removed at the next start."""
    shutil.rmtree(config.project_folder(project_id), ignore_errors=True)
