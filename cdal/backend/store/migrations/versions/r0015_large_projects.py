"""A reading of all tasks goes on where it stopped, and labels are counted by small indexes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

INDEXES = {
    "labelled_tasks": "annotations > 0",
    "learnt_tasks": "learnt_as IS NOT NULL",
    "changed_tasks": "label_changed_at IS NOT NULL",
}


def upgrade() -> None:
    """Add the columns and the indexes."""
    op.add_column("projects", sa.Column("read_up_to", NUMBER))
    op.add_column("projects", sa.Column("read_since", sa.String(40)))
    for name, condition in INDEXES.items():
        where = sa.text(condition)
        op.create_index(
            name,
            "tasks",
            ["project_id", "task_id"],
            sqlite_where=where,
            postgresql_where=where,
        )
