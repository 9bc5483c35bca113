"""What was measured of each class goes apart from the model versions, which every page reads."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

APART = ("per_class", "confusion")


def upgrade() -> None:
    """Move it, one version at a time: the matrices of hundreds of classes are large."""
    measured = op.create_table(
        "class_metrics",
        sa.Column("model_version_id", NUMBER, sa.ForeignKey("model_versions.id"), primary_key=True),
        sa.Column("per_class", sa.JSON(), nullable=False),
        sa.Column("columns", NUMBER, nullable=False),
        sa.Column("cells", sa.JSON(), nullable=False),
    )
    versions = sa.table(
        "model_versions",
        sa.column("id", NUMBER),
        sa.column("metrics", sa.JSON()),
        sa.column("serving_metrics", sa.JSON()),
    )
    connection = op.get_bind()
    for number in connection.scalars(sa.select(versions.c.id)).all():
        chosen = versions.c.id == number
        row = connection.execute(
            sa.select(versions.c.metrics, versions.c.serving_metrics).where(chosen)
        ).one()
        metrics, serving = row
        if metrics:
            connection.execute(measured.insert(), {"model_version_id": number, **_apart(metrics)})
        connection.execute(
            versions.update()
            .where(chosen)
            .values(metrics=_overall(metrics), serving_metrics=_overall(serving))
        )


def _apart(metrics: dict[str, Any]) -> dict[str, Any]:
    confusion = metrics.get("confusion") or []
    return {
        "per_class": metrics.get("per_class") or {},
        "columns": len(confusion[0]) if confusion else 0,
        "cells": [
            [row, column, count]
            for row, counts in enumerate(confusion)
            for column, count in enumerate(counts)
            if count
        ],
    }


def _overall(metrics: dict[str, Any] | None) -> dict[str, Any] | None:
    if metrics is None:
        return None
    return {name: value for name, value in metrics.items() if name not in APART}
