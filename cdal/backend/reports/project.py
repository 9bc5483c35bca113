"""A project: its state, progress and metric, its model versions, rounds and newest jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.loop.rounds import labels_in, open_round
from cdal.backend.loop.serving import main_version
from cdal.backend.reports.jobs import JobView, job_view
from cdal.backend.reports.pre_annotations import PreAnnotationsView, pre_annotations_by_round
from cdal.backend.reports.state import StateView, state_view
from cdal.backend.reports.view import LARGEST_ID, Time, View
from cdal.backend.store.queries import count_labelled, count_tasks
from cdal.backend.store.tables import Job, ModelVersion, Project, Round
from cdal.version import VERSION

NEWEST_JOBS = 20


class OriginView(View):
    """What the training of a model version began from, before any label."""

    name: str = Field(description='Of the weights, or "random weights".')
    source: str = Field(description='File, address or package; "" for random weights.')
    sha256: str = Field(description='Of the weights or their file; "" for random weights.')
    shortfall: str = Field(
        description="Why it did not begin from better weights, and what to do; mostly empty."
    )


class VersionView(View):
    """A model version."""

    number: int
    control: str = Field(
        description='Name of the control that it is for; "" for a version of an earlier release.'
    )
    serves: bool = Field(description="Whether it serves its control now.")
    architecture: str
    origin: OriginView | None = Field(
        description="Null for a version of an earlier release of the backend."
    )
    started_from: int | None = Field(
        description="The version whose weights it went on from; null where it began afresh."
    )
    labels: int = Field(description="Labelled images that were known when it was trained.")
    metric: str | None
    value: float | None = Field(description="The metric on the held-out images.")
    promoted: bool = Field(description="Whether it served when its training ended.")
    verdict: str = Field(description="Why it did or did not.")
    seconds: float
    created_at: Time


class RoundView(View):
    """A round: a budget of labels, for which the pool is ranked as often as the model learns."""

    number: int
    state: Literal["scoring", "selecting", "queueing", "open", "closed"] = Field(
        description='How far its first order has come; "open" while the label stream follows it.'
    )
    refreshes: int = Field(description="How often its order was refreshed.")
    version: int | None = Field(
        description="The model version of its newest order, for the main control; null where that "
        "went by none."
    )
    selector: str
    cold_start: str | None = Field(description="Why its newest order went by no model.")
    budget: int
    labels: int = Field(description="Labelled images when it began.")
    queue_version: str | None = Field(description="Of its newest order.")
    warnings: list[str]
    seconds: dict[str, float] = Field(
        description="Seconds that the jobs for all of its orders took, by kind."
    )
    pre_annotations: PreAnnotationsView | None = Field(
        description="What people made of its predictions; null where none was submitted."
    )


class ProgressView(View):
    """How far people are with the open round."""

    round: int
    labels: int = Field(description="Images labelled or skipped in it.")
    budget: int


class MetricView(View):
    """The serving version's metric, and how it moved."""

    name: str
    value: float
    images: int | None = Field(description="Held-out images that it was measured on.")
    before: float | None = Field(
        description="The previous version's, on the same images; null without one."
    )
    moved: float | None


class ProjectView(View):
    """A project and what it is doing."""

    id: int = Field(description="The backend's own number, which other paths take.")
    label_studio_id: int
    url: str = Field(description="Label Studio's address, as the backend reaches it.")
    public_url: str | None = Field(
        description="The address that Label Studio calls its own; null if it is the same."
    )
    title: str
    tasks: int
    labelled: int
    queue_version: str | None
    serving_version: int | None = Field(
        description="The version that serves the main control; see `serves` of each version."
    )
    paused_at: Time | None
    problem: str | None = Field(description="What needs an admin's attention.")
    problem_advice: str | None = Field(description="What can be done about the problem.")
    state: StateView
    progress: ProgressView | None = Field(description="Null where no round is open.")
    metric: MetricView | None = Field(description="Null where nothing has been measured.")
    versions: list[VersionView]
    rounds: list[RoundView]
    jobs: list[JobView] = Field(description=f"The newest {NEWEST_JOBS}, the newest first.")


class ProjectsView(View):
    """Every project, and the backend that serves them."""

    version: str = Field(description="Of the backend.")
    projects: list[ProjectView]


class RollbackBody(BaseModel):
    """Which model version is to serve."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int = Field(ge=1, le=LARGEST_ID)


def projects_view(session: Session, number: int | None = None) -> ProjectsView:
    """Every project, or the one with this number."""
    query = select(Project).order_by(Project.id)
    if number is not None:
        query = query.filter_by(id=number)
    found = session.scalars(query).all()
    return ProjectsView(
        version=VERSION, projects=[project_view(session, project) for project in found]
    )


def project_view(session: Session, project: Project) -> ProjectView:
    """A project and what it is doing."""
    versions = session.scalars(
        select(ModelVersion).filter_by(project_id=project.id).order_by(ModelVersion.number)
    ).all()
    rounds = session.scalars(
        select(Round).filter_by(project_id=project.id).order_by(Round.number, Round.ranking)
    ).all()
    jobs = session.scalars(
        select(Job).filter_by(project_id=project.id).order_by(Job.id.desc()).limit(NEWEST_JOBS)
    ).all()
    numbers = {version.id: version.number for version in versions}
    serving = main_version(session, project)
    kept = pre_annotations_by_round(session, project.id)
    return ProjectView(
        id=project.id,
        label_studio_id=project.label_studio_id,
        url=project.url,
        public_url=project.public_url,
        title=project.title,
        tasks=count_tasks(session, project.id),
        labelled=count_labelled(session, project.id),
        queue_version=project.queue_version,
        serving_version=None if serving is None else serving.number,
        paused_at=project.paused_at,
        problem=project.problem,
        problem_advice=project.problem_advice,
        state=state_view(session, project),
        progress=_progress(session, project),
        metric=_metric(serving),
        versions=[_version(version, numbers) for version in versions],
        rounds=[
            _round(list(orders), numbers, kept.get(number))
            for number, orders in groupby(rounds, lambda row: row.number)
        ],
        jobs=[job_view(job) for job in jobs],
    )


def _progress(session: Session, project: Project) -> ProgressView | None:
    current = open_round(session, project)
    if current is None:
        return None
    return ProgressView(
        round=current.number, labels=labels_in(session, current), budget=current.budget
    )


def _metric(version: ModelVersion | None) -> MetricView | None:
    """The serving version's metric, and the previous version's on the same images."""
    if version is None or not version.metrics:
        return None
    name = version.metrics["main_name"]
    before = (version.serving_metrics or {}).get("values", {}).get(name)
    value = version.metrics["values"][name]
    return MetricView(
        name=name,
        value=value,
        images=version.metrics.get("images"),
        before=before,
        moved=None if before is None else value - before,
    )


def _version(version: ModelVersion, numbers: Mapping[int, int]) -> VersionView:
    metrics = version.metrics
    return VersionView(
        number=version.number,
        control=version.control,
        serves=version.serves,
        architecture=version.architecture,
        origin=None if version.origin is None else OriginView(**version.origin),
        started_from=numbers.get(version.started_from or -1),
        labels=version.labels,
        metric=metrics.get("main_name"),
        value=metrics.get("values", {}).get(metrics.get("main_name")),
        promoted=version.promoted,
        verdict=version.verdict,
        seconds=version.seconds,
        created_at=version.created_at,
    )


def _round(
    orders: Sequence[Round], numbers: Mapping[int, int], kept: PreAnnotationsView | None
) -> RoundView:
    """A round, by its orders from the first to the newest."""
    followed = [row for row in orders if row.queue_version is not None]
    row = (followed or orders)[-1]
    seconds: dict[str, float] = {}
    for order in orders:
        for kind, took in order.seconds.items():
            seconds[kind] = seconds.get(kind, 0.0) + took
    return RoundView(
        number=row.number,
        state=row.state,
        refreshes=max(0, len(followed) - 1),
        version=numbers.get(row.model_version_id or -1),
        selector=row.selector,
        cold_start=row.cold_start,
        budget=row.budget,
        labels=row.labels,
        queue_version=row.queue_version,
        warnings=row.warnings,
        seconds=seconds,
        pre_annotations=kept,
    )
