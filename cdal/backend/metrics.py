"""Prometheus metrics: the requests of this process, and what the store knows of the rest."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from cdal.backend.services import Services
from cdal.backend.status import project_status
from cdal.backend.tables import Job, Project


class StoreCollector(Collector):
    """Reads the store at each scrape: the worker, another process, writes it."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("cdal_jobs", "Jobs by kind and state.", labels=["kind", "state"])
        images = GaugeMetricFamily(
            "cdal_images", "Images of a project.", labels=["project", "state"]
        )
        rounds = GaugeMetricFamily("cdal_round", "Number of the newest round.", labels=["project"])
        model = GaugeMetricFamily(
            "cdal_model_metric",
            "Held-out metric of the model that serves.",
            labels=["project", "metric"],
        )
        seconds = GaugeMetricFamily(
            "cdal_round_seconds", "Seconds the newest round took.", labels=["project", "step"]
        )
        with self._services.store.reading() as session:
            counts = session.execute(
                select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state)
            )
            for kind, state, count in counts:
                jobs.add_metric([kind, state], count)
            for project in session.scalars(select(Project)):
                status = project_status(session, project)
                name = str(project.id)
                images.add_metric([name, "labelled"], status["labelled"])
                images.add_metric([name, "unlabelled"], status["tasks"] - status["labelled"])
                for version in status["versions"]:
                    if version["number"] == status["serving_version"] and version["metric"]:
                        model.add_metric([name, version["metric"]], version["value"])
                if status["rounds"]:
                    newest = status["rounds"][-1]
                    rounds.add_metric([name], newest["number"])
                    for step, value in newest["seconds"].items():
                        seconds.add_metric([name, step], value)
        yield from (jobs, images, rounds, model, seconds)


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
        # The rule, not the address: a caller could otherwise make labels without end.
        path = request.url_rule.rule if request.url_rule else "unknown"
        elapsed = time.perf_counter() - g.get("began", time.perf_counter())
        # Nor is a method that no path answers to worth a label.
        method = request.method if request.url_rule else "unknown"
        requests.labels(path, method, str(response.status_code)).observe(elapsed)
        return response

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
