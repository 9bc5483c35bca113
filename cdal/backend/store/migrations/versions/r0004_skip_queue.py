"""What a project in Label Studio does with skipped tasks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; the next look at Label Studio fills it."""
    op.add_column("projects", sa.Column("skip_queue", sa.String(40)))
