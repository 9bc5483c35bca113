"""The pool map's page: what is labelled, queued or neither, and images to queue next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from flask import request
from sqlalchemy import select

from cdal.backend.loop.pool_map import newest_map
from cdal.backend.loop.rounds import open_round, scored_by
from cdal.backend.reports.pool_map import PointView, PoolMapView, pool_map_view
from cdal.backend.reports.project import project_view
from cdal.backend.store.tables import Job
from cdal.backend.web.pages.site import page, project_or_404, site
from cdal.backend.web.request import ID, services

WIDTH, HEIGHT, MARGIN = 1000, 640, 16
COLOURS = ("class", "uncertainty", "round")
COLOUR_COUNT = 10
"""Colours of the palette; further classes share one more and differ by name only."""


@dataclass(frozen=True, slots=True)
class Point:
    """An image on the map.

    Attributes:
        task: its number.
        x: in pixels of the map.
        y: in pixels of the map.
        mark: its state, which gives its shape: labelled, queued, skipped or unlabelled.
        tone: the name of its colour.
        text: all of it, in words.
    """

    task: int
    x: float
    y: float
    mark: str
    tone: str
    text: str


@site.get(f"/projects/<{ID}:number>/pool-map")
def pool_map(number: int) -> str:
    with services().store.reading() as session:
        project = project_or_404(session, number)
        view = project_view(session, project)
        current = open_round(session, project)
        scored = current is not None and scored_by(session, current) is not None
        drawn = newest_map(session, services().config, project)
        drawn_map = pool_map_view(session, project, drawn) if drawn is not None else None
        job = session.scalars(
            select(Job).filter_by(project_id=number, kind="pool_map").order_by(Job.id.desc())
        ).first()
    # Without a model, no class and no uncertainty is known.
    colours = COLOURS if drawn_map is None or drawn_map.classes else COLOURS[-1:]
    colour = request.args.get("colour", colours[0])
    colour = colour if colour in colours else colours[0]
    if scored and drawn is None and (job is None or job.state == "done"):
        services().jobs.ask(number, "pool_map", "the pool's page")
    points, legend = _points(drawn_map, colour) if drawn_map is not None else ([], [])
    return page(
        "pool_map.html",
        project=view,
        pool_map=drawn_map,
        points=points,
        legend=legend,
        colour=colour,
        colours=colours,
        width=WIDTH,
        height=HEIGHT,
        job=job,
        scored=scored,
    )


def _points(view: PoolMapView, colour: str) -> tuple[list[Point], list[tuple[str, str, int]]]:
    """The points to draw, the most important last, and the legend of their colours."""
    highest = max([point.entropy for point in view.points], default=0.0) or 1.0
    drawn = []
    names: Counter[tuple[str, str]] = Counter()
    order = {"unlabelled": 0, "skipped": 0, "labelled": 1, "queued": 2}
    for point in sorted(view.points, key=lambda point: order[point.state]):
        name, tone = _tone(point, colour, view.classes, highest)
        names[name, tone] += 1
        drawn.append(
            Point(
                task=point.task,
                x=round(MARGIN + point.x * (WIDTH - 2 * MARGIN), 1),
                y=round(MARGIN + point.y * (HEIGHT - 2 * MARGIN), 1),
                mark=point.state,
                tone=tone,
                text=_words(point, view.classes),
            )
        )
    legend = [(name, tone, count) for (name, tone), count in names.items()]
    return drawn, sorted(legend, key=lambda entry: _legend_place(entry, colour))


def _tone(point: PointView, colour: str, classes: Sequence[str], highest: float) -> tuple[str, str]:
    """What a point's colour means, and the colour's name."""
    if colour == "class":
        index = point.class_
        return classes[index], str(index) if index < COLOUR_COUNT else "o"
    if colour == "uncertainty":
        step = min(4, int(5 * point.entropy / highest))
        return f"{step * highest / 5:.1f} to {(step + 1) * highest / 5:.1f} bits", f"u{step}"
    if point.round is None:
        return "in no round", "o"
    return f"round {point.round}", str((point.round - 1) % COLOUR_COUNT)


def _legend_place(entry: tuple[str, str, int], colour: str) -> tuple[float, str]:
    name, _, count = entry
    if colour == "class":
        return -count, name
    numbers = [float(part) for part in name.split() if part.replace(".", "").isdigit()]
    return (numbers[0] if numbers else -1.0), name


def _words(point: PointView, classes: Sequence[str]) -> str:
    words = f"Task {point.task}, {point.state}"
    if classes:
        words += f", the model says {classes[point.class_]}, {point.entropy:.2f} bits unsure"
    return words if point.round is None else f"{words}, round {point.round}"
