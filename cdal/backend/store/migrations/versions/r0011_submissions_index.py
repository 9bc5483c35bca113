"""Labels of a project in a span of time are counted without reading all of its labels."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Replace the index by time alone."""
    op.create_index("submissions_over_time", "submissions", ["project_id", "labelled_at"])
    op.drop_index("ix_submissions_labelled_at", "submissions")
