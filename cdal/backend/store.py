"""The database: one engine a process, one short transaction a step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.orm import Session, sessionmaker

from cdal.backend.tables import Base, Event

log = logging.getLogger(__name__)


class Store:
    """Where projects, rounds, model versions and jobs are remembered."""

    def __init__(self, url: str) -> None:
        """Open the database at a SQLAlchemy address and make what tables and columns it lacks."""
        self.engine = create_engine(url)
        if self.engine.dialect.name == "sqlite":
            _set_up_sqlite(self.engine)
        with self.engine.begin() as connection:
            Base.metadata.create_all(connection)
            _add_columns(connection)
        self._writing = sessionmaker(self.engine, expire_on_commit=False)
        self._reading = sessionmaker(
            self.engine.execution_options(sqlite_begin="DEFERRED"), expire_on_commit=False
        )

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session whose work is committed at the end, or rolled back on an error."""
        with self._writing.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads: on SQLite it neither waits for a writer nor holds one up."""
        with self._reading.begin() as session:
            yield session

    def close(self) -> None:
        self.engine.dispose()


def note(session: Session, project_id: int | None, text: str, level: str = "info") -> None:
    """Record an event and log it."""
    session.add(Event(project_id=project_id, level=level, text=text))
    where = f"project {project_id}: " if project_id is not None else ""
    log.log(logging.getLevelNamesMapping()[level.upper()], "%s%s", where, text)


def _add_columns(connection: Connection) -> None:
    """Add what columns a database of an earlier version lacks; new ones may always be empty."""
    for table in Base.metadata.sorted_tables:
        known = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                kind = column.type.compile(connection.dialect)
                connection.exec_driver_sql(
                    f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"
                )


def _set_up_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: object) -> None:
        # The driver's own BEGIN comes too late for SELECT, so SQLAlchemy's recipe takes over.
        connection.isolation_level = None
        cursor = connection.cursor()
        # Readers go on while one writes; a commit survives a kill of the process.
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA busy_timeout=30000")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # A transaction that reads and then writes would fail at once, not wait, if another wrote
        # in between; taking the write lock first makes it wait.
        mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")
