"""The state of a project, also in words: "training, 43%, about 2 minutes left"."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.jobs.kinds import KINDS, STEPS
from cdal.backend.jobs.waits import must_wait_s
from cdal.backend.loop.rounds import labels_in, open_round
from cdal.backend.reports.jobs import seconds_left
from cdal.backend.reports.view import View
from cdal.backend.store.queries import any_row, waiting
from cdal.backend.store.tables import Job, Project, Task
from cdal.backend.text import duration, estimate

Doing = Literal["empty", "working", "waiting", "labelling", "finished", "paused"]


class StateView(View):
    """What a project is doing."""

    doing: Doing = Field(
        description='"empty": it has no images; "working": a job runs; "waiting": a job or round '
        'is due; "labelling": people have images to label; "finished": nothing is left to label; '
        '"paused": nothing starts by itself.'
    )
    text: str = Field(description="All of it, in words.")
    share: float | None = Field(None, description="Progress of the running job, from 0 to 1.")
    seconds_left: float | None = Field(
        None, description="Until that job ends, estimated from its pace so far."
    )


def state_view(session: Session, project: Project) -> StateView:
    """What a project is doing now."""
    jobs = {
        job.kind: job
        for job in session.scalars(
            select(Job)
            .where(Job.project_id == project.id, Job.state.in_(("pending", "running")))
            .order_by(Job.state)  # a running job hides a pending one of the same kind
        )
    }
    busy = [jobs[kind] for kind in STEPS if kind in jobs]
    for job in sorted(busy, key=lambda job: job.state != "running"):
        return _state_of_job(job)
    if not any_row(session, Task.project_id == project.id):
        if "sync" in jobs:
            return StateView(doing="working", text="reading the project's images")
        return StateView(doing="empty", text="there are no images yet; import some in Label Studio")
    return _state_of_round(session, project)


def _state_of_job(job: Job) -> StateView:
    what = KINDS[job.kind].name
    if job.state == "pending":
        wait = must_wait_s(job)
        if wait and job.error is not None:  # else it makes room for another, or came too often
            text = f"{what} failed and will be tried again in {duration(wait)}"
            return StateView(doing="waiting", text=text)
        return StateView(doing="waiting", text=f"{what} is waiting for its turn")
    left = seconds_left(job)
    if left is None:
        return StateView(doing="working", text=f"{what}, just started", share=job.progress)
    text = f"{what}, {job.progress:.0%}, {estimate(left)} left"
    return StateView(doing="working", text=text, share=job.progress, seconds_left=left)


def _state_of_round(session: Session, project: Project) -> StateView:
    current = open_round(session, project)
    paused = project.paused_at is not None
    if not any_row(session, waiting(project.id)):
        return StateView(doing="finished", text="every usable image is labelled")
    if current is None and paused:
        return StateView(doing="paused", text="paused; no round starts until it is resumed")
    if current is None:
        return StateView(doing="waiting", text="the next round is about to start")
    wanted = current.budget - labels_in(session, current)
    if wanted <= 0 and not paused:
        text = f"round {current.number} is labelled; the next training is about to start"
        return StateView(doing="waiting", text=text)
    wanted = max(wanted, 0)
    labels = "1 label" if wanted == 1 else f"{wanted} labels"
    if paused:
        text = f"paused, with {labels} of round {current.number} still wanted"
        return StateView(doing="paused", text=text)
    return StateView(doing="labelling", text=f"waiting for {labels} of round {current.number}")
