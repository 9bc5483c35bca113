"""The schema of the database: which revision it has, and how it is brought up to date."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect

from cdal.backend.errors import DataFolderError
from cdal.backend.store.engine import READING
from cdal.backend.store.sqlite_file import copy_database

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(engine: Engine) -> None:
    """Create or migrate what is missing in the database, as its only writer.

    Where several processes start together, one migrates and the others wait and find it done. All
    migrations are one transaction. A SQLite file that is in use is copied beside itself first.

    Raises:
        DataFolderError: a newer version of the backend has written the database.
    """
    with engine.begin() as connection:
        revision = _revision(connection)
        if revision == newest_revision():
            return
        copy = None
        if inspect(connection).has_table("projects"):
            copy = _copy(engine, revision)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    if revision is not None or copy is not None:
        kept = f" A copy from before is kept in {copy}." if copy is not None else ""
        log.info("The database was upgraded to revision %s.%s", newest_revision(), kept)


def check(engine: Engine) -> None:
    """Check that the database is up to date, without changing it.

    Raises:
        DataFolderError: it is not; the message says what to do.
    """
    reading = engine.execution_options(**READING[engine.dialect.name])
    with reading.begin() as connection:
        if _revision(connection) != newest_revision():
            raise DataFolderError(
                "The database has not been upgraded to this version yet; start the backend, which "
                "does it."
            )


def newest_revision() -> str | None:
    """The revision that this version of the backend needs."""
    return scripts().get_current_head()


@lru_cache(maxsize=1)
def scripts() -> ScriptDirectory:
    """The migrations."""
    return ScriptDirectory(MIGRATIONS)


def _revision(connection: Connection) -> str | None:
    """The revision of a database; None before its first migration.

    Raises:
        DataFolderError: this version of the backend does not know it.
    """
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and revision not in {s.revision for s in scripts().walk_revisions()}:
        raise DataFolderError(
            f"A newer version of the backend has upgraded the database, to revision {revision}; "
            f"this version knows revision {newest_revision()} at most. Install the newer version, "
            "or restore a copy from before the upgrade, as docs/operations.md says."
        )
    return revision


def _copy(engine: Engine, revision: str | None) -> Path | None:
    """Copy a SQLite file beside itself, under the number of its revision."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return None
    file = Path(engine.url.database)
    target = file.with_name(f"{file.stem}-{revision or '0000'}{file.suffix}")
    copy_database(file, target)
    return target
