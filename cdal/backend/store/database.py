"""The database: one engine per process, one short transaction per step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session, sessionmaker

from cdal.backend.store.engine import READING, open_engine
from cdal.backend.store.schema import upgrade


class Store:
    """Projects, rounds, model versions and jobs, in SQLite or PostgreSQL.

    There is one writer at a time: what a transaction has read is still true when it writes.
    """

    def __init__(self, url: str) -> None:
        """Open the database at a SQLAlchemy address, and upgrade it to this version.

        Raises:
            DataFolderError: a newer version of the backend has written it.
        """
        self.engine = open_engine(url)
        try:
            upgrade(self.engine)
        except Exception:
            self.engine.dispose()
            raise
        self._writing = sessionmaker(self.engine, expire_on_commit=False)
        self._reading = sessionmaker(
            self.engine.execution_options(**READING[self.engine.dialect.name]),
            expire_on_commit=False,
        )

    @property
    def has_one_worker(self) -> bool:
        """Whether the database is a file, which is for one machine and one worker."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session whose work is committed at the end, or rolled back on an error."""
        with self._writing.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads: it neither waits for a writer nor holds one up."""
        with self._reading.begin() as session:
            yield session

    def close(self) -> None:
        self.engine.dispose()
