"""A project's page: its round, learning curve, confusions, annotators, and where time goes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from cdal.backend.actions import known_settings
from cdal.backend.errors import advice_on
from cdal.backend.jobs.kinds import KINDS, STEPS
from cdal.backend.reports.events import events_status
from cdal.backend.reports.project import project_status
from cdal.backend.reports.quality import quality_status
from cdal.backend.reports.savings import savings_status
from cdal.backend.reports.throughput import throughput_status
from cdal.backend.store.tables import ModelVersion, Project
from cdal.backend.web.pages.charts import Bar, Curve, columns, learning_curve
from cdal.backend.web.pages.site import page, project_or_404, site
from cdal.backend.web.request import ID, services

EVENTS = 40
"""The newest are shown."""


@site.get(f"/projects/<{ID}:number>")
def project(number: int) -> str:
    with services().store.reading() as session:
        found = project_or_404(session, number)
        status = project_status(session, found)
        serving = (
            session.get(ModelVersion, found.serving_version_id)
            if found.serving_version_id is not None
            else None
        )
        quality = quality_status(serving) if serving is not None and serving.metrics else None
        throughput = throughput_status(session, found)
        savings = savings_status(session, found)
        parameters = known_settings(found.extra_params)
        events = events_status(session, number, limit=EVENTS)
    return page(
        "project.html",
        status=status,
        advice=advice_on(status["problem"]),
        curve=learning_curve(status["versions"]),
        savings=savings,
        savings_curve=_savings_curve(savings),
        random_share=parameters.get("random_share", 0.0),
        quality=quality,
        throughput=throughput,
        bars=_bars(throughput["over_time"]["bars"]),
        events=events,
        failed=next((job for job in status["jobs"] if job["state"] == "failed"), None),
        steps=STEPS,
        steps_words={kind: known.name for kind, known in KINDS.items()},
    )


def _savings_curve(savings: dict[str, Any]) -> Curve | None:
    """The versions that served beside the model of random labels, on the same images."""
    if not savings["known"]:
        return None
    points = [
        {"number": place, "promoted": True, **point}
        for place, point in enumerate(savings["curve"], start=1)
    ]
    return learning_curve(points, [savings["random"]])


def _bars(over_time: list[dict[str, object]]) -> list[Bar]:
    counts = [int(str(bar["labels"])) for bar in over_time]
    texts = [f"{bar['labels']} labels from {bar['from']}" for bar in over_time]
    return columns(counts, texts)


@site.get("/projects", strict_slashes=False)
def projects() -> str:
    with services().store.reading() as session:
        found = session.scalars(select(Project).order_by(Project.id)).all()
        statuses = [project_status(session, project) for project in found]
    advice = {status["id"]: advice_on(status["problem"]) for status in statuses}
    return page("projects.html", projects=statuses, advice=advice)
