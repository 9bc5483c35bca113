"""A project is known by its server and its uid; a copy of a server has the same uids."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    Column,
    Connection,
    Index,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    text,
)

revision = "0005"
down_revision = "0004"

KEY = "projects_url_uid"


def upgrade() -> None:
    """Change the key, and add where Label Studio calls from and how people reach it."""
    op.add_column("projects", Column("public_url", Text))
    op.add_column("projects", Column("caller", String(64)))
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        _build_again(connection)
        return
    for constraint in inspect(connection).get_unique_constraints("projects"):
        if constraint["column_names"] == ["uid"]:
            op.drop_constraint(str(constraint["name"]), "projects")
    op.create_unique_constraint(KEY, "projects", ["url", "uid"])


def _build_again(connection: Connection) -> None:
    """SQLite can neither drop nor add a constraint, so the table is built again.

    Other tables refer to it. A new table under another name, renamed at the end, would leave them
    without what they refer to; the same rows under the same name do not.
    """
    connection.execute(text("PRAGMA defer_foreign_keys=ON"))
    numbers = text("SELECT seq FROM sqlite_sequence WHERE name = 'projects'")
    has_numbers = connection.scalar(
        text("SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_sequence'")
    )
    last = connection.scalar(numbers) if has_numbers else None
    old = Table("projects", MetaData(), autoload_with=connection)
    columns = [
        Column(c.name, c.type, primary_key=c.primary_key, nullable=c.nullable) for c in old.columns
    ]
    indexes = [Index(index.name, *index.columns.keys()) for index in old.indexes]
    connection.execute(text("CREATE TEMPORARY TABLE old_projects AS SELECT * FROM projects"))
    connection.execute(text("DROP TABLE projects"))
    key = UniqueConstraint("url", "uid", name=KEY)
    made = Table("projects", MetaData(), *columns, *indexes, key, sqlite_autoincrement=True)
    made.create(connection)
    connection.execute(text("INSERT INTO projects SELECT * FROM old_projects"))
    connection.execute(text("DROP TABLE old_projects"))
    if last is not None:  # the numbers of forgotten projects are not used again
        connection.execute(
            text("UPDATE sqlite_sequence SET seq = :last WHERE name = 'projects'"), {"last": last}
        )
