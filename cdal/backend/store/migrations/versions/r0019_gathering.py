"""A project knows when it was last looked at, and how many labels are missing for what is due."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add the columns."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    looked_at: sa.Column[object] = sa.Column("looked_at", sa.DateTime())
    op.add_column("projects", looked_at)
    missing: sa.Column[int] = sa.Column("labels_missing", number)
    op.add_column("projects", missing)
