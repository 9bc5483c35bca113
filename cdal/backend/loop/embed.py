"""Embed: let a pretrained backbone see the pool before there is a model, to find typical images."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from sqlalchemy import select
from torch import Tensor

from cdal.backend.errors import ImageError
from cdal.backend.loop.context import Context
from cdal.backend.loop.engines.choice import engine_of
from cdal.backend.loop.image_problems import record_problems, refuse_if_away
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.loop.rounds import NO_MODEL
from cdal.backend.loop.select import draw_order
from cdal.backend.loop.train import new_network
from cdal.backend.store.events import note
from cdal.backend.store.queries import count_labelled, rows_of
from cdal.backend.store.tables import UNTRAINED, Round, Task, now
from cdal.models import ModelError, choose_device
from cdal.models.head import HeadNetwork

LONGEST_S = 60.0
"""Nobody waits longer for typical images: later they would only be better by a little."""

MOST = 10_000
"""Images that are embedded at most: TypiClust compares no more of them with each other."""

SO_FAR = " So far, "

LOOK_SECONDS = 1.0
"""Seconds between two looks at whether to end early."""


def embed(work: Context, current: Round) -> str:
    """Embed the pool, or a random part of it, then request the selection of typical images.

    Where there is no backbone, or no image, the order stays random, and says why.
    """
    started = time.monotonic()
    with work.services.store.reading() as session:
        every = session.scalars(select(Task.task_id).where(Task.project_id == work.project.id))
        order = draw_order(every.all(), work.settings.seed)
        drawn = rows_of(session, work.project.id, order[:MOST], Task.task_id, Task.image)
        images = {task_id: image for task_id, image in drawn}  # noqa: C416 — rows are no pairs
    try:
        network = new_network(work, choose_device(work.services.config.device))
    except ModelError as error:
        return _without(work, current, str(error))
    assert isinstance(network, HeadNetwork)  # noqa: S101 — the settings want typical images
    todo = [(task_id, images[task_id]) for task_id in order[:MOST]]
    ids, vectors = _embedded(work, current, network, todo)
    if not ids:
        return _without(work, current, "none of the images can be read.")
    folder = work.services.config.scores_folder(work.project.id, UNTRAINED)
    _replace(folder, _scores(ids, torch.cat(vectors)))
    with work.services.store.transaction() as session:
        begun = session.get_one(Round, current.id)
        work.check_cancelled(session)
        if begun.state != "scoring":
            return "a newer round has taken its place"
        if count_labelled(session, work.project.id) >= work.settings.min_labels:
            # The model that they are enough for orders the pool better.
            begun.state, begun.closed_at = "closed", now()
            work.request(session, "sync", "labels that are enough for a model")
        else:
            begun.state = "selecting"
            begun.seconds = {**begun.seconds, "score": time.monotonic() - started}
            part = f"{len(ids):,} of {len(order):,} images have been embedded"
            if len(ids) < len(order):
                why = (begun.cold_start or "").partition(SO_FAR)[0]  # an earlier look may say so
                begun.cold_start = f"{why}{SO_FAR}{part}."
            note(session, work.project.id, f"Round {begun.number}: {part}, to find typical ones")
            work.request(session, "select", f"round {begun.number}")
    return f"{len(ids)} of {len(order)} images embedded"


def _embedded(
    work: Context, current: Round, network: HeadNetwork, todo: Sequence[tuple[int, object]]
) -> tuple[list[int], list[Tensor]]:
    """Tasks of the images that the backbone has seen, and their features, batch by batch."""
    problems: dict[int, ImageError] = {}

    def problem(task_id: int, why: ImageError) -> None:
        problems[task_id] = why
        work.check_stop()

    ids: list[int] = []
    vectors: list[Tensor] = []
    enough = _Enough(work, current)
    reader = work.services.input_reader(work.project)
    for batch in engine_of(work).inputs(reader, network, todo, problem):
        assert not isinstance(batch.images, Tensor)  # noqa: S101 — a head is given features
        ids += batch.ids
        vectors.append(network.vectors(batch.images).cpu())
        done = len(ids) + len(problems)
        work.report(done / len(todo), f"{done} of {len(todo)} images embedded")
        if enough():
            break
    refuse_if_away(work, problems, len(ids) + len(problems), needs_one=bool(problems))
    record_problems(work, problems)
    return ids, vectors


class _Enough:
    """Whether to end: time is up, labels are enough for a model, or the round was given up."""

    def __init__(self, work: Context, current: Round) -> None:
        self._work = work
        self._round = current.id
        self._deadline = time.monotonic() + LONGEST_S
        self._looked = time.monotonic()

    def __call__(self) -> bool:
        clock = time.monotonic()
        if clock >= self._deadline:
            return True
        if clock - self._looked < LOOK_SECONDS:
            return False
        self._looked = clock
        with self._work.services.store.reading() as session:
            labelled = count_labelled(session, self._work.project.id)
            state = session.get_one(Round, self._round).state
        return labelled >= self._work.settings.min_labels or state != "scoring"


def _scores(task_ids: Sequence[int], vectors: Tensor) -> Scores:
    """Features of images as the scores of a model with a single class, which it sees nowhere."""
    count = len(task_ids)
    return Scores(
        task_ids=torch.tensor(task_ids),
        probabilities=torch.ones(count, 1),
        uncertainties=torch.zeros(count, 3),
        features=vectors,
        mixtures=torch.zeros(count, 1, 1),
        present=torch.zeros(count, 1, dtype=torch.bool),
        region_counts=torch.zeros(count, 1, dtype=torch.int64),
    )


def _replace(folder: Path, scores: Scores) -> None:
    """Keep these only: those of another backbone or size do not compare with them."""
    shutil.rmtree(folder, ignore_errors=True)
    scores.save(folder)


def _without(work: Context, current: Round, why: str) -> str:
    """Let the order be random, and say why."""
    with work.services.store.transaction() as session:
        begun = session.get_one(Round, current.id)
        work.check_cancelled(session)
        if begun.state == "scoring":
            begun.state, begun.selector = "selecting", "random"
            begun.cold_start = f"{NO_MODEL} Typical images cannot be found: {why}"
            note(session, work.project.id, f"Round {begun.number} is random: {begun.cold_start}")
            work.request(session, "select", f"round {begun.number}")
    return f"no typical images: {why}"
