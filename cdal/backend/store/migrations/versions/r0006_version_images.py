"""Which images each model version has learnt from, so that it is compared on others alone."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary

revision = "0006"
down_revision = "0005"

NUMBER = BigInteger().with_variant(Integer(), "sqlite")


def upgrade() -> None:
    """Of earlier versions it is not known; the next one serves without a comparison."""
    op.create_table(
        "version_images",
        Column("model_version_id", NUMBER, ForeignKey("model_versions.id"), primary_key=True),
        Column("learnt", LargeBinary, nullable=False),
        Column("judged", LargeBinary, nullable=False),
        Column("judgements", LargeBinary, nullable=False),
    )
