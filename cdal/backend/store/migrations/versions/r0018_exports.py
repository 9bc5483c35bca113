"""Model versions as files for other programs, which the worker makes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the table."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "exports",
        sa.Column("model_version_id", number, sa.ForeignKey("model_versions.id"), primary_key=True),
        sa.Column("file_format", sa.String(20), primary_key=True),
        sa.Column("made_at", sa.DateTime()),
        sa.Column("problem", sa.Text()),
    )
