"""The database: one engine a process, one short transaction a step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session, sessionmaker

from cdal.backend.store.engine import READING, open_engine
from cdal.backend.store.schema import upgrade
from cdal.backend.store.tables import Event

log = logging.getLogger(__name__)


class Store:
    """Where projects, rounds, model versions and jobs are remembered.

    Whoever writes is alone, on any database: what a transaction has read is still so when it
    writes.
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


def note(session: Session, project_id: int | None, text: str, level: str = "info") -> None:
    """Record an event and log it."""
    session.add(Event(project_id=project_id, level=level, text=text))
    where = f"project {project_id}: " if project_id is not None else ""
    extra = {"project": project_id} if project_id is not None else {}
    log.log(logging.getLevelNamesMapping()[level.upper()], "%s%s", where, text, extra=extra)
