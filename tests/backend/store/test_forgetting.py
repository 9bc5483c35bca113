"""Forgetting a project."""

from __future__ import annotations

from cdal.backend.store.forgetting import belonging
from cdal.backend.store.tables import Base


def test_every_table_but_the_workers_belongs_to_projects() -> None:
    """Where a new one refers to none, its rows would stay for ever: name it here, or let it."""
    tables = Base.metadata.sorted_tables
    assert [table.name for table in tables if belonging(table, 1) is None] == ["workers"]
