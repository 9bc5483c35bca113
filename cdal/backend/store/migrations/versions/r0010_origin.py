"""What a model version began from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column; of earlier versions it is not known."""
    op.add_column("model_versions", sa.Column("origin", sa.JSON))
