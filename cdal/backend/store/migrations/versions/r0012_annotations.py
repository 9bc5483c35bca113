"""Annotations that are compared with what they began with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the table; what was submitted before is compared when its task changes."""
    op.create_table(
        "annotations",
        sa.Column("project_id", NUMBER, sa.ForeignKey("projects.id"), primary_key=True),
        sa.Column("annotation_id", NUMBER, primary_key=True),
        sa.Column("task_id", NUMBER, nullable=False),
        sa.Column("annotator", NUMBER),
        sa.Column("round", NUMBER),
        sa.Column("kept", sa.Double()),
    )
    op.create_index("annotations_by_task", "annotations", ["project_id", "task_id"])
