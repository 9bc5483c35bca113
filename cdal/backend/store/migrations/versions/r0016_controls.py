"""A project may have several controls that are served, each by versions of its own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the columns; that a version serves is said by itself, and no longer by its project."""
    control: sa.Column[str] = sa.Column("control", sa.Text(), nullable=False, server_default="")
    op.add_column("model_versions", control)
    serves: sa.Column[bool] = sa.Column(
        "serves", sa.Boolean(), nullable=False, server_default=sa.false()
    )
    op.add_column("model_versions", serves)
    projects = sa.table("projects", sa.column("serving_version_id"))
    known = sa.table("model_versions", sa.column("id"), sa.column("serves", sa.Boolean()))
    serving = sa.select(projects.c.serving_version_id).where(
        projects.c.serving_version_id.is_not(None)
    )
    op.execute(known.update().where(known.c.id.in_(serving)).values(serves=sa.true()))
    op.drop_column("projects", "serving_version_id")
    beside: sa.Column[object] = sa.Column("beside", sa.JSON(), nullable=False, server_default="[]")
    op.add_column("rounds", beside)
