"""How far annotators agree, and how confident the model was of what they replaced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the columns; what was read before is compared when its task changes."""
    for name in ("confidence", "others", "consensus"):
        op.add_column("annotations", sa.Column(name, sa.Double()))
    op.add_column("annotations", sa.Column("first_read", sa.String(40)))
    for name in ("is_truth", "is_changed"):
        made: sa.Column[bool] = sa.Column(
            name, sa.Boolean(), nullable=False, server_default=sa.false()
        )
        op.add_column("annotations", made)
