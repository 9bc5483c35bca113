"""The connection to SQLite or PostgreSQL, set up so that both keep the store's promises."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event

from cdal.backend.store.sqlite_file import make_private, use_wal

WRITING = 0x6364_616C_0001
"""Number of the writers' lock in a PostgreSQL database."""

READING: Mapping[str, Mapping[str, Any]] = {
    "sqlite": {"sqlite_begin": "DEFERRED"},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
"""Execution options for readers, by dialect: a reader sees the state of one moment."""


def open_engine(url: str) -> Engine:
    """An engine whose writers wait for each other; nothing is connected yet."""
    # A connection that the server has closed is replaced before it is used.
    engine = create_engine(url, pool_pre_ping=True)
    {"sqlite": _set_up_sqlite, "postgresql": _set_up_postgresql}[engine.dialect.name](engine)
    return engine


def _set_up_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "do_connect")
    def _private(_dialect: object, _record: object, arguments: Any, _options: object) -> None:
        if arguments and not str(arguments[0]).startswith((":memory:", "file:")):
            make_private(Path(arguments[0]))  # it may hold tokens

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: object) -> None:
        # The driver's own BEGIN comes too late for SELECT, so SQLAlchemy's recipe takes over.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=30000")
        # Readers go on while one writes; a commit survives a kill of the process.
        use_wal(cursor)
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # A transaction that reads and then writes would fail at once if another wrote in between;
        # taking the write lock first makes it wait instead.
        mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")


def _set_up_postgresql(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _limits(connection: Any, _record: object) -> None:
        # As on SQLite, a writer waits this long for another. A writer whose machine vanished in
        # the middle of a transaction must not block the others for hours.
        connection.execute("SET lock_timeout = '30s'")
        connection.execute("SET idle_in_transaction_session_timeout = '60s'")
        connection.commit()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # Two writers that read first would each miss the other's change, so they take turns.
        options = connection.get_execution_options()
        if not options.get("postgresql_readonly") and not _is_autocommit(options):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITING})")


def _is_autocommit(options: Mapping[str, Any]) -> bool:
    return options.get("isolation_level") == "AUTOCOMMIT"
