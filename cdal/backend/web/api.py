"""The JSON API: what the backend is doing, and what an admin may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, redirect, url_for
from sqlalchemy import select
from werkzeug.wrappers import Response

from cdal.backend import actions
from cdal.backend.actions import Done
from cdal.backend.errors import ActionError
from cdal.backend.loop.pool_map import newest_map
from cdal.backend.reports.agreement import AgreementView, agreement_view
from cdal.backend.reports.comparison import ComparisonQuery, ComparisonView, comparison_view
from cdal.backend.reports.events import EventsQuery, EventsView, events_view
from cdal.backend.reports.jobs import JobsQuery, JobsView, JobView, job_view, jobs_view
from cdal.backend.reports.pool_map import PoolMapView, pool_map_view
from cdal.backend.reports.project import (
    ProjectsView,
    ProjectView,
    RollbackBody,
    project_view,
    projects_view,
)
from cdal.backend.reports.quality import QualityView, quality_view
from cdal.backend.reports.queue import QueueView, queue_view
from cdal.backend.reports.savings import SavingsView, savings_view
from cdal.backend.reports.throughput import ThroughputView, throughput_view
from cdal.backend.services import Services
from cdal.backend.store.queries import find_job, find_project
from cdal.backend.store.tables import ModelVersion
from cdal.backend.web.openapi import API, checked, document
from cdal.backend.web.request import ID, services

api = Blueprint("api", __name__, url_prefix="/api/v1")

BY = "the API"


@api.get("/openapi.json")
def openapi() -> dict[str, Any]:
    spec: dict[str, Any] = document.spec
    return spec


@api.get("/projects")
@checked(API, ProjectsView)
def projects() -> ProjectsView:
    """Every project that is connected."""
    with services().store.reading() as session:
        return projects_view(session)


@api.get(f"/projects/<{ID}:number>")
@checked(API, ProjectView)
def project(number: int) -> ProjectView:
    """One project: its model versions, rounds and newest jobs."""
    with services().store.reading() as session:
        return project_view(session, find_project(session, number))


@api.get(f"/projects/<{ID}:number>/queue")
@checked(API, QueueView)
def queue(number: int) -> QueueView:
    """The images that a project's label stream serves, by rank."""
    with services().store.reading() as session:
        return queue_view(session, find_project(session, number))


@api.get(f"/projects/<{ID}:number>/versions/<{ID}:version>")
@checked(API, QualityView)
def model_version(number: int, version: int) -> QualityView:
    """How good a model version is, class by class, and what it confuses."""
    with services().store.reading() as session:
        find_project(session, number)
        found = session.scalars(
            select(ModelVersion).filter_by(project_id=number, number=version)
        ).one_or_none()
        if found is None:
            raise ActionError(f"There is no model version {version} of project {number}.", 404)
        return quality_view(session, found)


@api.get(f"/projects/<{ID}:number>/savings")
@checked(API, SavingsView)
def savings(number: int) -> SavingsView:
    """How many labels selection has saved compared with random labels, where known."""
    with services().store.reading() as session:
        return savings_view(session, find_project(session, number))


@api.get(f"/projects/<{ID}:number>/throughput")
@checked(API, ThroughputView)
def throughput(number: int) -> ThroughputView:
    """How fast people label, and who."""
    with services().store.reading() as session:
        return throughput_view(session, find_project(session, number))


@api.get(f"/projects/<{ID}:number>/agreement")
@checked(API, AgreementView)
def agreement(number: int) -> AgreementView:
    """How far annotators agree, and the tasks that are worth a second look."""
    with services().store.reading() as session:
        return agreement_view(session, find_project(session, number))


@api.get(f"/projects/<{ID}:number>/pool-map")
@checked(API, PoolMapView)
def pool_map(number: int) -> PoolMapView:
    """The pool map, once somebody has opened its page."""
    with services().store.reading() as session:
        found = find_project(session, number)
        drawn = newest_map(session, services().config, found)
        if drawn is None:
            raise ActionError("There is no pool map yet; open its page to have one drawn.", 404)
        return pool_map_view(session, found, drawn)


@api.get(f"/projects/<{ID}:number>/pool")
def moved_pool_map(number: int) -> Response:
    """Redirect from the pool map's old path."""
    return redirect(url_for("api.pool_map", number=number), 301)


@api.get(f"/projects/<{ID}:number>/comparison")
@checked(API, ComparisonView)
def comparison(number: int, query: ComparisonQuery) -> ComparisonView:
    """What two selectors would pick in the open round, once they were compared on the page."""
    with services().store.reading() as session:
        found = find_project(session, number)
        view = comparison_view(session, services().config, found, [query.a, query.b])
    if view is None:
        raise ActionError("There is no open round with a model to compare selectors for.", 404)
    return view


@api.get("/jobs")
@checked(API, JobsView)
def jobs(query: JobsQuery) -> JobsView:
    """Jobs of all projects or one."""
    with services().store.reading() as session:
        return jobs_view(session, **query.model_dump())


@api.get(f"/jobs/<{ID}:number>")
@checked(API, JobView)
def job(number: int) -> JobView:
    """One job, with its progress and the time left."""
    with services().store.reading() as session:
        return job_view(find_job(session, number))


@api.get("/events")
@checked(API, EventsView)
def events(query: EventsQuery) -> EventsView:
    """Events of all projects or one, in words."""
    with services().store.reading() as session:
        return events_view(session, **query.model_dump())


@api.post(f"/projects/<{ID}:number>/retrain")
@checked(API, Done)
def retrain(number: int) -> Done:
    """Train on the current labels."""
    return _do(actions.retrain, number)


@api.post(f"/projects/<{ID}:number>/rescore")
@checked(API, Done)
def rescore(number: int) -> Done:
    """Rank the pool again with the serving model."""
    return _do(actions.rescore, number)


@api.post(f"/projects/<{ID}:number>/roll-back")
@checked(API, Done)
def roll_back(number: int, json: RollbackBody) -> Done:
    """Let another model version serve, and rank the pool with it."""
    return actions.roll_back(services(), number, json.version, BY)


@api.post(f"/projects/<{ID}:number>/pause")
@checked(API, Done)
def pause(number: int) -> Done:
    """Start no training and no round automatically."""
    return _do(actions.pause, number)


@api.post(f"/projects/<{ID}:number>/resume")
@checked(API, Done)
def resume(number: int) -> Done:
    """End a pause."""
    return _do(actions.resume, number)


@api.post(f"/jobs/<{ID}:number>/cancel")
@checked(API, Done)
def cancel(number: int) -> Done:
    """Cancel a job: at once if it is waiting, within seconds if it is running."""
    return _do(actions.cancel, number)


@api.post(f"/jobs/<{ID}:number>/retry")
@checked(API, Done)
def retry(number: int) -> Done:
    """Run a failed or cancelled job again."""
    return _do(actions.retry, number)


def _do(action: Callable[[Services, int, str], Done], number: int) -> Done:
    return action(services(), number, BY)
