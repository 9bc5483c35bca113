"""Which engine a job computes with: this process, or a Ray cluster."""

from __future__ import annotations

from cdal.backend.loop.context import Context
from cdal.backend.loop.engines.engine import Engine
from cdal.backend.loop.engines.local import LocalEngine


def engine_of(work: Context) -> Engine:
    """The engine that the server's settings name."""
    if work.services.config.engine == "ray":
        # An extra that need not be installed.
        from cdal.backend.loop.engines.ray import RayEngine

        return RayEngine.of(work)
    return LocalEngine()
