"""The queue's page: the round's images in order, the prediction of each, and why it was picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flask import request
from sqlalchemy import select
from sqlalchemy.orm import Session

from cdal.backend.errors import ConfigError
from cdal.backend.loop.comparison import QUICK, made, want
from cdal.backend.loop.predictions import Part, parts_of
from cdal.backend.loop.rounds import open_round, scored_by, versions_of
from cdal.backend.project_config import ProjectConfig
from cdal.backend.reports.comparison import ranks_of
from cdal.backend.reports.project import project_view
from cdal.backend.reports.queue import PickView, Why, queue_view, why_picked
from cdal.backend.reports.view import LARGEST_ID
from cdal.backend.store.tables import ModelVersion, Pick, Project, Round, Task
from cdal.backend.web.pages.drawing import Drawing, drawing_of, together
from cdal.backend.web.pages.site import page, project_or_404, site
from cdal.backend.web.request import ID, services

PAGE = 24
"""Images per page."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One image of the queue.

    Attributes:
        pick: its rank and state.
        drawing: its prediction, if any.
        why: why it was picked, if known.
        nearest: the prediction of its nearest image.
        nearest_is: how that image relates to the queue, in words.
        ranks: by every selector that has ranked the pool.
    """

    pick: PickView
    drawing: Drawing | None
    why: Why | None
    nearest: Drawing | None
    nearest_is: str
    ranks: Mapping[str, int | None]


@site.get(f"/projects/<{ID}:number>/queue")
def queue(number: int) -> str:
    first = min(max(0, request.args.get("from", 0, type=int)), LARGEST_ID)
    with services().store.reading() as session:
        project = project_or_404(session, number)
        view = project_view(session, project)
        current = open_round(session, project)
        queued = queue_view(session, project, first, PAGE)
        shown = [] if current is None else _shown(session, project, current, queued.picks)
        ranked_by = [] if current is None else list(made(session, current))
        scored = None if current is None else scored_by(session, current)
    if current is not None and not first:
        _have_ranked(project, current)
    return page(
        "queue.html",
        project=view,
        queue=queued,
        shown=shown,
        first=first,
        page_size=PAGE,
        ranked_by=ranked_by,
        chance=current is not None and scored is None,
        has_model=bool(scored),
    )


def _have_ranked(project: Project, current: Round) -> None:
    """Let the quick selectors rank this round, once, because somebody looks at their ranks."""
    if current.model_version_id is None:
        return
    with services().store.reading() as session:
        known = made(session, current)
    if all(name in known for name in QUICK):
        return
    with services().store.transaction() as session:
        want(session, services().jobs, project, current, QUICK, "the queue's page")
    services().jobs.send_pending(project.id)


def _shown(
    session: Session, project: Project, current: Round, picks: Sequence[PickView]
) -> list[Shown]:
    reasons = {pick.task: pick.reason for pick in picks}
    nearest = {
        task: reason["nearest"]
        for task, reason in reasons.items()
        if isinstance(reason.get("nearest"), int)
    }
    near = list(nearest.values())
    draw = Drawings.of(session, project, current, [*reasons, *near])
    why: Mapping[int, Why] = {}
    if current.model_version_id is not None:
        version = session.get_one(ModelVersion, current.model_version_id)
        folder = services().config.scores_folder(project.id, version.number)
        independent = draw.config is not None and draw.config.control.multiple
        beside = [name for other in versions_of(session, current)[1:] for name in other.classes]
        why = why_picked(folder, version.classes, reasons, independent, beside)
    ranks = ranks_of(made(session, current), list(reasons))
    known = _what_they_are(session, current, near)
    return [
        Shown(
            pick=pick,
            drawing=draw(pick.task),
            why=why.get(pick.task),
            nearest=draw(nearest.get(pick.task)),
            nearest_is=known.get(nearest.get(pick.task, 0), "queued before it"),
            ranks=ranks[pick.task],
        )
        for pick in picks
    ]


def _what_they_are(session: Session, current: Round, task_ids: Sequence[int]) -> dict[int, str]:
    """How each of these images relates to the queue, where it was not queued before, in words."""
    drawn = session.execute(
        select(Pick.task_id, Pick.reason).where(
            Pick.round_id == current.id, Pick.task_id.in_(task_ids)
        )
    )
    words = {task: "drawn at random in this round" for task, why in drawn if why.get("random")}
    labelled = select(Task.task_id).where(
        Task.project_id == current.project_id, Task.annotations > 0, Task.task_id.in_(task_ids)
    )
    return words | dict.fromkeys(session.scalars(labelled), "labelled")


@dataclass(frozen=True, slots=True)
class Drawings:
    """Draws the predictions that a round's model made for some images."""

    config: ProjectConfig | None
    parts: Sequence[Part]

    @classmethod
    def of(
        cls, session: Session, project: Project, current: Round, task_ids: Sequence[int]
    ) -> Drawings:
        try:
            config = ProjectConfig.parse(project.labeling_config, project.extra_params)
        except ConfigError:  # the project's page reports it
            return cls(None, ())
        return cls(config, parts_of(session, current, config.controls, task_ids))

    def __call__(self, task: int | None) -> Drawing | None:
        config = self.config
        if task is None or config is None:
            return None
        drawings = [
            drawing_of(part.control, config.settings, part.version.classes, part.findings[task])
            for part in self.parts
            if task in part.findings
        ]
        return together([drawing for drawing in drawings if drawing is not None])
