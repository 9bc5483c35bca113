"""What a project is doing, in words: "training, 43%, about 2 minutes left"."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cdal.backend.jobs.kinds import KINDS, STEPS
from cdal.backend.loop.rounds import labels_in, open_round
from cdal.backend.reports.jobs import seconds_left
from cdal.backend.store.queries import count_tasks, waiting
from cdal.backend.store.tables import Job, Project, now
from cdal.backend.text import duration, estimate

Doing = Literal["empty", "working", "waiting", "labelling", "finished", "paused"]


@dataclass(frozen=True, slots=True)
class State:
    """What a project is doing.

    Attributes:
        doing: "empty" has no images, "working" runs a job, "waiting" has one that waits,
            "labelling" waits for people, "finished" has nothing left to label, "paused" begins
            nothing by itself.
        text: all of it, in words.
        share: of the job that runs, in [0, 1].
        seconds_left: until that job ends, at its pace so far.
    """

    doing: Doing
    text: str
    share: float | None = None
    seconds_left: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)


def state_of(session: Session, project: Project) -> State:
    """What a project is doing now."""
    jobs = {
        job.kind: job
        for job in session.scalars(
            select(Job)
            .where(Job.project_id == project.id, Job.state.in_(("pending", "running")))
            .order_by(Job.state)  # one that runs hides one that waits
        )
    }
    busy = [jobs[kind] for kind in STEPS if kind in jobs]
    for job in sorted(busy, key=lambda job: job.state != "running"):
        return _of_job(job, now())
    if count_tasks(session, project.id) == 0:
        if "sync" in jobs:
            return State("working", "reading the project's images")
        return State("empty", "there are no images yet; import some in Label Studio")
    return _of_round(session, project)


def _of_job(job: Job, at: datetime) -> State:
    what = KINDS[job.kind].name
    if job.state == "pending":
        if job.not_before is not None and job.not_before > at:
            seconds = (job.not_before - at).total_seconds()
            return State("waiting", f"{what} failed, and is tried again in {duration(seconds)}")
        return State("waiting", f"{what} waits for its turn")
    left = seconds_left(job)
    if left is None:
        return State("working", f"{what}, just begun", job.progress)
    text = f"{what}, {job.progress:.0%}, {estimate(left)} left"
    return State("working", text, job.progress, left)


def _of_round(session: Session, project: Project) -> State:
    current = open_round(session, project)
    left = session.scalar(select(func.count()).where(waiting(project.id))) or 0
    paused = project.paused_at is not None
    if not left:
        return State("finished", "every image that can be used is labelled")
    if current is None and paused:
        return State("paused", "paused; no round begins until it is resumed")
    if current is None:
        return State("waiting", "the next round is about to begin")
    wanted = current.budget - labels_in(session, current)
    if wanted <= 0 and not paused:
        return State("waiting", f"round {current.number} is labelled; the next training is to come")
    wanted = max(wanted, 0)
    labels = "1 label" if wanted == 1 else f"{wanted} labels"
    if paused:
        return State("paused", f"paused, with {labels} of round {current.number} still wanted")
    return State("labelling", f"waiting for {labels} of round {current.number}")
