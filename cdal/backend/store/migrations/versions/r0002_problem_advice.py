"""Projects keep what can be done about their problem."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; it stays empty until the next problem."""
    op.add_column("projects", Column("problem_advice", Text))
