"""Images that cannot be read are counted without looking at every task."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Add the index."""
    where = sa.text("image_problem IS NOT NULL")
    op.create_index(
        "tasks_with_bad_images",
        "tasks",
        ["project_id", "task_id"],
        sqlite_where=where,
        postgresql_where=where,
    )
