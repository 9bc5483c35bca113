"""Forgetting a project: its rows in every table, and its files."""

from __future__ import annotations

import shutil

from sqlalchemy import ColumnElement, FromClause, delete, or_, select
from sqlalchemy.orm import Session

from cdal.backend.config import ServerConfig
from cdal.backend.store.tables import Base, Project


def forget_rows(session: Session, project_id: int) -> None:
    """Remove a project and all that refers to it from the store; none of its jobs may run."""
    for table in reversed(Base.metadata.sorted_tables):
        condition = belonging(table, project_id)
        if condition is not None:
            session.execute(delete(table).where(condition))


def belonging(table: FromClause, project_id: int) -> ColumnElement[bool] | None:
    """The condition on a table's rows that they belong to a project, however indirectly.

    Returns:
        None where the table knows nothing of projects.
    """
    if table is Project.__table__:
        return Project.id == project_id
    ways = []
    for key in table.foreign_keys:
        condition = belonging(key.column.table, project_id)
        if condition is not None:
            ways.append(key.parent.in_(select(key.column).where(condition)))
    return or_(*ways) if ways else None


def forget_files(config: ServerConfig, project_id: int) -> None:
    """Remove a project's weights and scores; the next start removes what a kill leaves of them."""
    shutil.rmtree(config.project_folder(project_id), ignore_errors=True)
