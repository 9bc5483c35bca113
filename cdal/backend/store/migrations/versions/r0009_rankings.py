"""A round may be ranked several times: rankings are counted, and rounds keep their number."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Until now, each ranking was a round of its own."""
    # SQLite could not move the uniqueness of one column to another, but it can rename the column.
    op.execute("ALTER TABLE rounds RENAME COLUMN number TO ranking")
    number = BigInteger().with_variant(Integer(), "sqlite")
    op.add_column("rounds", Column("number", number, nullable=False, server_default="0"))
    op.execute("UPDATE rounds SET number = ranking")
