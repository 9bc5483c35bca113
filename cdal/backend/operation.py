"""What whoever runs the backend watches: `/ready`; `/metrics` is in metrics.py."""

from __future__ import annotations

from dataclasses import asdict

from flask import Blueprint, Response, current_app, jsonify

from cdal.backend.openapi import OPERATION, describe
from cdal.backend.readiness import Readiness
from cdal.backend.schema.readiness import ReadyView

operation = Blueprint("operation", __name__)


@operation.get("/ready")
@describe(OPERATION, ReadyView, also={503: ReadyView})
def ready() -> tuple[Response, int]:
    """Whether the backend can do its work, part by part; 503 where one cannot."""
    readiness: Readiness = current_app.extensions["cdal-readiness"]
    checks = readiness.checks()
    well = all(check.ok for check in checks)
    return jsonify(ready=well, checks=[asdict(check) for check in checks]), 200 if well else 503
