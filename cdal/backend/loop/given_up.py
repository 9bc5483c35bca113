"""Jobs that fail for good or are cancelled: what becomes of what they were making."""

from __future__ import annotations

from sqlalchemy.orm import Session

from cdal.backend.loop.export import give_up_exports_of
from cdal.backend.loop.rounds import give_up_round_of
from cdal.backend.store.tables import Job


def on_job_given_up(session: Session, job: Job) -> None:
    """Record that what a job was making will not come."""
    give_up_round_of(session, job)
    give_up_exports_of(session, job)
