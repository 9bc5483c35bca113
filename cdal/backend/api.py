"""The JSON API: what the backend is at, and what an admin may do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from flask import Blueprint
from sqlalchemy import select

from cdal.backend import actions
from cdal.backend.openapi import API, checked, document
from cdal.backend.request import ID, services
from cdal.backend.schema import (
    DoneView,
    EventsQuery,
    EventsView,
    JobsQuery,
    JobsView,
    JobView,
    ProjectsView,
    ProjectView,
    QueueView,
    RollbackBody,
)
from cdal.backend.status import (
    events_status,
    job_status,
    jobs_status,
    project_status,
    queue_status,
)
from cdal.backend.tables import Project

api = Blueprint("api", __name__, url_prefix="/api/v1")

BY = "the API"

Answer = dict[str, Any]


@api.get("/openapi.json")
def openapi() -> Answer:
    spec: Answer = document.spec
    return spec


@api.get("/projects")
@checked(API, ProjectsView)
def projects() -> Answer:
    """Every project that is connected."""
    with services().store.reading() as session:
        found = session.scalars(select(Project).order_by(Project.id)).all()
        return {"projects": [project_status(session, project) for project in found]}


@api.get(f"/projects/<{ID}:number>")
@checked(API, ProjectView)
def project(number: int) -> Answer:
    """One project: its model versions, rounds and newest jobs."""
    with services().store.reading() as session:
        return project_status(session, actions.find_project(session, number))


@api.get(f"/projects/<{ID}:number>/queue")
@checked(API, QueueView)
def queue(number: int) -> Answer:
    """The images that a project's label stream serves, by rank."""
    with services().store.reading() as session:
        return queue_status(session, actions.find_project(session, number))


@api.get("/jobs")
@checked(API, JobsView)
def jobs(query: JobsQuery) -> Answer:
    """The jobs of all projects or one."""
    with services().store.reading() as session:
        return {"jobs": jobs_status(session, **query.model_dump())}


@api.get(f"/jobs/<{ID}:number>")
@checked(API, JobView)
def job(number: int) -> Answer:
    """One job, with its progress and the time left."""
    with services().store.reading() as session:
        return job_status(actions.find_job(session, number))


@api.get("/events")
@checked(API, EventsView)
def events(query: EventsQuery) -> Answer:
    """What happened, in words."""
    with services().store.reading() as session:
        return {"events": events_status(session, **query.model_dump())}


@api.post(f"/projects/<{ID}:number>/retrain")
@checked(API, DoneView)
def retrain(number: int) -> Answer:
    """Train on the labels of now."""
    return _do(actions.retrain, number)


@api.post(f"/projects/<{ID}:number>/rescore")
@checked(API, DoneView)
def rescore(number: int) -> Answer:
    """Begin a new round with the serving model."""
    return _do(actions.rescore, number)


@api.post(f"/projects/<{ID}:number>/roll-back")
@checked(API, DoneView)
def roll_back(number: int, json: RollbackBody) -> Answer:
    """Let another model version serve, and begin a round with it."""
    return asdict(actions.roll_back(services(), number, json.version, BY))


@api.post(f"/projects/<{ID}:number>/pause")
@checked(API, DoneView)
def pause(number: int) -> Answer:
    """Let no training and no round begin by itself."""
    return _do(actions.pause, number)


@api.post(f"/projects/<{ID}:number>/resume")
@checked(API, DoneView)
def resume(number: int) -> Answer:
    """End a pause."""
    return _do(actions.resume, number)


@api.post(f"/jobs/<{ID}:number>/cancel")
@checked(API, DoneView)
def cancel(number: int) -> Answer:
    """End a job: at once where it waits, within seconds where it runs."""
    return _do(actions.cancel, number)


@api.post(f"/jobs/<{ID}:number>/retry")
@checked(API, DoneView)
def retry(number: int) -> Answer:
    """Have done again what a job that failed or was cancelled was to do."""
    return _do(actions.retry, number)


def _do(action: Callable[[Any, int, str], actions.Done], number: int) -> Answer:
    return asdict(action(services(), number, BY))
