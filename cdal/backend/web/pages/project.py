"""A project's page: its state, learning curve, savings, confusions, annotators and events."""

from __future__ import annotations

from collections.abc import Sequence

from cdal.backend.actions import known_settings
from cdal.backend.jobs.kinds import KINDS, STEPS
from cdal.backend.loop.export import exports_of
from cdal.backend.reports.agreement import agreement_view
from cdal.backend.reports.events import events_view
from cdal.backend.reports.project import VersionView, project_view, projects_view
from cdal.backend.reports.quality import quality_view
from cdal.backend.reports.savings import SavingsView, savings_view
from cdal.backend.reports.throughput import BarView, throughput_view
from cdal.backend.store.queries import serving_versions
from cdal.backend.web.pages.charts import Bar, Curve, Point, columns, learning_curve
from cdal.backend.web.pages.site import page, project_or_404, site
from cdal.backend.web.request import ID, services

MATRIX = 20
"""Classes whose confusion matrix still fits on the page."""

FORMATS = {"onnx": "ONNX", "torchscript": "TorchScript", "safetensors": "safetensors"}
"""What a model version may be downloaded as."""

TASKS = 20
"""Tasks shown that are worth a second look."""

EVENTS = 40
"""Events shown, the newest."""


@site.get(f"/projects/<{ID}:number>")
def project(number: int) -> str:
    with services().store.reading() as session:
        found = project_or_404(session, number)
        view = project_view(session, found)
        qualities = [
            quality_view(session, serving, MATRIX)
            for serving in serving_versions(session, found.id)
            if serving.metrics
        ]
        throughput = throughput_view(session, found)
        agreement = agreement_view(session, found)
        savings = savings_view(session, found)
        parameters = known_settings(found.extra_params)
        exports = exports_of(session, services().config, found)
        events = events_view(session, number, limit=EVENTS).events
    return page(
        "project.html",
        project=view,
        curves=_learning_curves(view.versions),
        savings=savings,
        savings_curve=_savings_curve(savings),
        random_share=parameters.get("random_share", 0.0),
        qualities=qualities,
        matrix_classes=MATRIX,
        throughput=throughput,
        agreement=agreement,
        second_look=agreement.second_look[:TASKS],
        bars=_bars(throughput.over_time.bars),
        events=events,
        formats=FORMATS,
        exports=exports,
        failed=next((job for job in view.jobs if job.state == "failed"), None),
        steps=STEPS,
        steps_words={kind: known.name for kind, known in KINDS.items()},
        long_kinds=[kind for kind, known in KINDS.items() if known.is_long],
    )


def _learning_curves(versions: Sequence[VersionView]) -> dict[str, Curve]:
    """A curve per control that has one, by its name."""
    names = dict.fromkeys(version.control for version in versions)
    curves = {name: _learning_curve([v for v in versions if v.control == name]) for name in names}
    return {name: curve for name, curve in curves.items() if curve is not None}


def _learning_curve(versions: Sequence[VersionView]) -> Curve | None:
    return learning_curve(
        [
            Point(
                f"Version {version.number}",
                version.labels,
                version.value,
                "served" if version.promoted else "kept",
            )
            for version in versions
            if version.value is not None
        ]
    )


def _savings_curve(savings: SavingsView) -> Curve | None:
    """The versions that served beside the model of random labels, on the same images."""
    if savings.random is None:
        return None
    served = [Point("All labels", one.labels, one.value, "served") for one in savings.curve]
    random = Point("Random labels alone", savings.random.labels, savings.random.value, "random")
    return learning_curve([*served, random])


def _bars(over_time: Sequence[BarView]) -> list[Bar]:
    counts = [bar.labels for bar in over_time]
    texts = [f"{bar.labels} labels from {bar.from_:%Y-%m-%d %H:%M} UTC" for bar in over_time]
    return columns(counts, texts)


@site.get("/projects", strict_slashes=False)
def projects() -> str:
    with services().store.reading() as session:
        found = projects_view(session).projects
    return page("projects.html", projects=found)
