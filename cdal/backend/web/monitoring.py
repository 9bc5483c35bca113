"""Monitoring: Prometheus metrics at `/metrics`, and readiness at `/ready`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

from flask import Blueprint, Flask, Response, current_app, g, jsonify, request
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cdal.backend.jobs.workers import living, seconds_since_beat
from cdal.backend.reports.health import Readiness, ReadyView, free_bytes, oldest_wait_s
from cdal.backend.reports.project import project_view
from cdal.backend.services import Services
from cdal.backend.store.queries import count_unusable
from cdal.backend.store.tables import Job, Project, now
from cdal.backend.web.openapi import OPERATION, describe


class StoreCollector(Collector):
    """Reads the store at each scrape, because the worker writes it in another process."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        free = GaugeMetricFamily("cdal_disk_free_bytes", "Free space on the data folder's disk.")
        free.add_metric([], free_bytes(self._services))
        yield free
        with self._services.store.reading() as session:
            yield from _worker(session)
            yield from _jobs(session)
            yield from _projects(session)


def _worker(session: Session) -> Iterator[Metric]:
    running = len(living(session))
    up = GaugeMetricFamily("cdal_worker_up", "Whether a worker's heartbeat is recent.")
    up.add_metric([], float(running > 0))
    yield up
    workers = GaugeMetricFamily("cdal_workers", "Workers whose heartbeat is recent.")
    workers.add_metric([], running)
    yield workers
    age = seconds_since_beat(session)
    beat = GaugeMetricFamily(
        "cdal_worker_heartbeat_age_seconds",
        "Age of the newest heartbeat of any worker; absent once all have ended.",
    )
    if age is not None:
        beat.add_metric([], age)
    yield beat


def _jobs(session: Session) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("cdal_jobs", "Jobs by kind and state.", labels=["kind", "state"])
    counts = session.execute(
        select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state)
    )
    for kind, state, count in counts:
        jobs.add_metric([kind, state], count)
    yield jobs
    failed = GaugeMetricFamily(
        "cdal_jobs_failed_last_day", "Jobs that failed within 24 hours.", labels=["project", "kind"]
    )
    counts = session.execute(
        select(Job.project_id, Job.kind, func.count())
        .where(Job.state == "failed", Job.finished_at > now() - timedelta(days=1))
        .group_by(Job.project_id, Job.kind)
    )
    for project_id, kind, count in counts:
        failed.add_metric([str(project_id), kind], count)
    yield failed
    oldest = GaugeMetricFamily(
        "cdal_oldest_waiting_job_seconds",
        "How long the oldest job that is free to run has been waiting.",
    )
    oldest.add_metric([], oldest_wait_s(session))
    yield oldest


def _projects(session: Session) -> Iterator[Metric]:
    def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, text, labels=["project", *labels])

    images = gauge("cdal_images", "Images of a project.", "state")
    rounds = gauge("cdal_round", "Number of the newest round.")
    version = gauge("cdal_serving_version", "Number of the model version that serves.")
    model = gauge("cdal_model_metric", "Held-out metric of the model that serves.", "metric")
    seconds = gauge("cdal_round_seconds", "Seconds the newest round took.", "step")
    problem = gauge("cdal_project_problem", "Whether a problem needs an admin's attention.")
    paused = gauge("cdal_project_paused", "Whether the project is paused.")
    looked = gauge("cdal_last_look_age_seconds", "Time since Label Studio was last read.")
    errors = CounterMetricFamily(
        "cdal_label_studio_errors",
        "Jobs that failed because Label Studio was away or refused a request.",
        labels=["project"],
    )
    for project in session.scalars(select(Project)):
        view = project_view(session, project)
        name = str(project.id)
        images.add_metric([name, "labelled"], view.labelled)
        images.add_metric([name, "unlabelled"], view.tasks - view.labelled)
        images.add_metric([name, "unusable"], count_unusable(session, project.id))
        problem.add_metric([name], float(project.problem is not None))
        paused.add_metric([name], float(project.paused_at is not None))
        errors.add_metric([name], project.label_studio_errors or 0)
        if view.serving_version is not None:
            version.add_metric([name], view.serving_version)
        if view.metric is not None:
            model.add_metric([name, view.metric.name], view.metric.value)
        if view.rounds:
            newest = view.rounds[-1]
            rounds.add_metric([name], newest.number)
            for step, value in newest.seconds.items():
                seconds.add_metric([name, step], value)
        last = select(func.max(Job.finished_at)).filter_by(
            project_id=project.id, kind="sync", state="done"
        )
        at = session.scalar(last)
        if at is not None:
            looked.add_metric([name], (now() - at).total_seconds())
    yield from (images, rounds, version, model, seconds, problem, paused, looked, errors)


def add_metrics(app: Flask, services: Services) -> None:
    """Count and time requests, and serve `/metrics`."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(services))
    requests = Histogram(
        "cdal_request_seconds",
        "Requests by path, method and status.",
        ["path", "method", "status"],
        registry=registry,
    )

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        # The rule, not the path: a caller could otherwise create any number of labels.
        path = request.url_rule.rule if request.url_rule else "unknown"
        elapsed = time.perf_counter() - g.get("began", time.perf_counter())
        # For the same reason, methods count only where a rule matches.
        method = request.method if request.url_rule else "unknown"
        requests.labels(path, method, str(response.status_code)).observe(elapsed)
        return response

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


operation = Blueprint("operation", __name__)


@operation.get("/ready")
@describe(OPERATION, ReadyView, also={503: ReadyView})
def ready() -> tuple[Response, int]:
    """Whether the backend can do its work, part by part; 503 if a part fails."""
    readiness: Readiness = current_app.extensions["cdal-readiness"]
    view = readiness.view()
    return jsonify(view.model_dump()), 200 if view.ready else 503
