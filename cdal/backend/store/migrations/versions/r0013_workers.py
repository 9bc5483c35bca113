"""Several workers: each has a row with its heartbeat, and a job says who runs it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Replace the single heartbeat, which a worker writes at its start."""
    op.create_table(
        "workers",
        sa.Column("id", NUMBER, primary_key=True),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("pid", NUMBER, nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
    )
    op.drop_table("heartbeats")
    op.add_column("jobs", sa.Column("worker_id", NUMBER, nullable=True))
