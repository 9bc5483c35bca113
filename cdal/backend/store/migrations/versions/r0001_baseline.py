"""The tables of the versions without migrations.

They are written down here once more since those of `tables.py` change with the code.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    text,
)

revision = "0001"
down_revision = None

NUMBER = BigInteger().with_variant(Integer(), "sqlite")
BASELINE = MetaData()


def upgrade() -> None:
    """Create the tables and columns that are missing: all, or those of a later version."""
    connection = op.get_bind()
    BASELINE.create_all(connection)
    inspector = inspect(connection)
    for table in BASELINE.sorted_tables:
        known = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                # Every column that was added later may be empty.
                op.add_column(table.name, Column(column.name, column.type))


Table(
    "projects",
    BASELINE,
    Column("id", NUMBER, primary_key=True),
    Column("uid", String(64), nullable=False, unique=True),
    Column("label_studio_id", NUMBER, nullable=False, index=True),
    Column("url", Text(), nullable=False),
    Column("access_token", Text()),
    Column("title", Text(), nullable=False),
    Column("labeling_config", Text(), nullable=False),
    Column("extra_params", JSON(), nullable=False),
    Column("serving_version_id", NUMBER),
    Column("queue_version", String(120)),
    Column("view_id", NUMBER),
    Column("changes_seen", String(40)),
    Column("training_labels", NUMBER, nullable=False),
    Column("problem", Text()),
    Column("paused_at", DateTime()),
    Column("connected_at", DateTime()),
    Column("backend_host", Text()),
    Column("label_studio_errors", NUMBER),
    Column("webhook_secret", Text()),
    Column("webhook_guarded_at", DateTime()),
    Column("created_at", DateTime(), nullable=False),
    sqlite_autoincrement=True,
)
Table(
    "tasks",
    BASELINE,
    Column("project_id", NUMBER, ForeignKey("projects.id"), primary_key=True),
    Column("task_id", NUMBER, primary_key=True),
    Column("image", JSON(), nullable=False),
    Column("annotations", NUMBER, nullable=False),
    Column("skips", NUMBER, nullable=False),
    Column("image_problem", Text()),
)
Table(
    "submissions",
    BASELINE,
    Column("project_id", NUMBER, ForeignKey("projects.id"), primary_key=True),
    Column("task_id", NUMBER, primary_key=True),
    Column("labelled_at", DateTime(), nullable=False, index=True),
    Column("annotators", JSON(), nullable=False),
    Column("seconds", Double()),
)
Table(
    "annotators",
    BASELINE,
    Column("project_id", NUMBER, ForeignKey("projects.id"), primary_key=True),
    Column("number", NUMBER, primary_key=True),
    Column("name", Text(), nullable=False),
)
Table(
    "model_versions",
    BASELINE,
    Column("id", NUMBER, primary_key=True),
    Column("project_id", NUMBER, ForeignKey("projects.id"), nullable=False, index=True),
    Column("number", NUMBER, nullable=False),
    Column("architecture", String(80), nullable=False),
    Column("classes", JSON(), nullable=False),
    Column("fingerprint", String(80), nullable=False),
    Column("labels", NUMBER, nullable=False),
    Column("metrics", JSON(), nullable=False),
    Column("serving_metrics", JSON()),
    Column("started_from", NUMBER),
    Column("promoted", Boolean(), nullable=False),
    Column("verdict", Text(), nullable=False),
    Column("seconds", Double(), nullable=False),
    Column("created_at", DateTime(), nullable=False),
    UniqueConstraint("project_id", "number"),
)
Table(
    "rounds",
    BASELINE,
    Column("id", NUMBER, primary_key=True),
    Column("project_id", NUMBER, ForeignKey("projects.id"), nullable=False, index=True),
    Column("number", NUMBER, nullable=False),
    Column("model_version_id", NUMBER, ForeignKey("model_versions.id")),
    Column("state", String(20), nullable=False),
    Column("selector", String(40), nullable=False),
    Column("cold_start", Text()),
    Column("budget", NUMBER, nullable=False),
    Column("seed", NUMBER, nullable=False),
    Column("labels", NUMBER, nullable=False),
    Column("counts_from", NUMBER),
    Column("training_asked", NUMBER),
    Column("editions", NUMBER, nullable=False),
    Column("queue_version", String(120)),
    Column("warnings", JSON(), nullable=False),
    Column("report", JSON(), nullable=False),
    Column("seconds", JSON(), nullable=False),
    Column("created_at", DateTime(), nullable=False),
    Column("opened_at", DateTime()),
    Column("closed_at", DateTime()),
    UniqueConstraint("project_id", "number"),
)
Table(
    "picks",
    BASELINE,
    Column("round_id", NUMBER, ForeignKey("rounds.id"), primary_key=True),
    Column("rank", NUMBER, primary_key=True),
    Column("task_id", NUMBER, nullable=False),
    Column("state", String(10), nullable=False),
    Column("score", Double(), nullable=False),
    Column("reason", JSON(), nullable=False),
)
Table(
    "random_labels",
    BASELINE,
    Column("project_id", NUMBER, ForeignKey("projects.id"), primary_key=True),
    Column("task_id", NUMBER, primary_key=True),
)
Table(
    "yardsticks",
    BASELINE,
    Column("id", NUMBER, primary_key=True),
    Column("project_id", NUMBER, ForeignKey("projects.id"), nullable=False, index=True),
    Column("version", NUMBER, nullable=False),
    Column("result", JSON(), nullable=False),
    Column("created_at", DateTime(), nullable=False),
)
Table(
    "rankings",
    BASELINE,
    Column("round_id", NUMBER, ForeignKey("rounds.id"), primary_key=True),
    Column("selector", String(40), primary_key=True),
    Column("task_ids", JSON()),
    Column("problem", Text()),
    Column("seconds", Double(), nullable=False),
    Column("created_at", DateTime(), nullable=False),
)
Table(
    "predictions",
    BASELINE,
    Column("model_version_id", NUMBER, ForeignKey("model_versions.id"), primary_key=True),
    Column("task_id", NUMBER, primary_key=True),
    Column("finding", JSON(), nullable=False),
)
Table(
    "jobs",
    BASELINE,
    Column("id", NUMBER, primary_key=True),
    Column("project_id", NUMBER, ForeignKey("projects.id"), nullable=False, index=True),
    Column("kind", String(20), nullable=False),
    Column("state", String(20), nullable=False, index=True),
    Column("asked_by", Text(), nullable=False),
    Column("progress", Double(), nullable=False),
    Column("message", Text(), nullable=False),
    Column("outcome", Text()),
    Column("error", Text()),
    Column("attempts", NUMBER, nullable=False),
    Column("not_before", DateTime()),
    Column("created_at", DateTime(), nullable=False),
    Column("started_at", DateTime()),
    Column("finished_at", DateTime()),
    Column("cancelled_by", Text()),
    Index(
        "one_pending_job",
        "project_id",
        "kind",
        unique=True,
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
)
Table(
    "events",
    BASELINE,
    Column("id", NUMBER, primary_key=True),
    Column("project_id", NUMBER, ForeignKey("projects.id"), index=True),
    Column("level", String(10), nullable=False),
    Column("text", Text(), nullable=False),
    Column("created_at", DateTime(), nullable=False, index=True),
)
Table(
    "heartbeats",
    BASELINE,
    Column("id", NUMBER, primary_key=True),
    Column("host", Text(), nullable=False),
    Column("pid", NUMBER, nullable=False),
    Column("started_at", DateTime(), nullable=False),
    Column("seen_at", DateTime(), nullable=False),
)
