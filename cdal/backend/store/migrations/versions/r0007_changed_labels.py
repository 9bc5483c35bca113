"""What each task is labelled as, so that changed labels are learnt as new ones are."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, DateTime, String

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Nothing is known until the labels are read again."""
    op.add_column("tasks", Column("labelled_as", String(32)))
    op.add_column("tasks", Column("learnt_as", String(32)))
    op.add_column("tasks", Column("label_changed_at", DateTime))
