"""One name for each thing in the database as everywhere else; columns that nobody reads go."""

from __future__ import annotations

from alembic import op
from sqlalchemy import column, table

revision = "0003"
down_revision = "0002"

KINDS = {"rank": "comparison", "map": "pool_map", "yardstick": "savings"}
UNREAD = {
    "rounds": ("report", "opened_at"),
    "comparisons": ("seconds", "created_at"),
    "savings": ("created_at",),
}


def upgrade() -> None:
    """Rename tables and kinds of job, and drop the columns."""
    op.rename_table("rankings", "comparisons")
    op.drop_index("ix_yardsticks_project_id", "yardsticks")
    op.rename_table("yardsticks", "savings")
    op.create_index("ix_savings_project_id", "savings", ["project_id"])
    jobs = table("jobs", column("kind"))
    for old, new in KINDS.items():
        op.execute(jobs.update().where(jobs.c.kind == old).values(kind=new))
    for name, columns in UNREAD.items():
        for unread in columns:
            op.drop_column(name, unread)
