"""A project may have a Data Manager tab of the tasks that are worth a second look."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the columns."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    view: sa.Column[int] = sa.Column("second_look_view_id", number)
    op.add_column("projects", view)
    tasks: sa.Column[object] = sa.Column(
        "second_look", sa.JSON(), nullable=False, server_default="[]"
    )
    op.add_column("projects", tasks)
