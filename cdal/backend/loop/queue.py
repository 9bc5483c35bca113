"""Queue: put a round's images at the front of Label Studio's label stream, in order.

A queue version is written once. Nobody knows what an interrupted import has done, so its images
are written again under a new queue version, and Label Studio never follows the unfinished one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from label_studio_sdk.label_interface import LabelInterface
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cdal.backend.errors import LabelStudioError
from cdal.backend.loop.context import Context
from cdal.backend.loop.due import decide, labels_missing, read_facts
from cdal.backend.loop.predictions import count_ranked, joined, parts_of, rank_score
from cdal.backend.loop.prune import forget_old_scores
from cdal.backend.loop.rounds import (
    close_older,
    forget_older,
    is_refresh,
    labels_in,
    open_round,
    queue_version,
    unlabelled_picks,
)
from cdal.backend.store.events import note
from cdal.backend.store.queries import IDS_PER_QUERY, chunks, count_tasks, forget_all_but
from cdal.backend.store.tables import Pick, Project, Round, now

CHUNK = 2500
"""Predictions in one import call: Label Studio recounts all tasks of the project after each."""

FEW = 10
"""Predictions that are sent one by one before progress is reported."""

TASKS_PER_PREDICTION = 400
"""A project with as many tasks per prediction gets them one by one. The recount costs Label Studio
7 s of its processor for 100,000 tasks, in which it serves nobody; a prediction that comes alone
costs 50 ms (`measurements/label_studio_costs.py`). At worst, that is twice as much, but people are
served in between."""

CHUNK_CHARACTERS = 2**24
"""Approximate size of one import call as JSON: brush strokes are long, and built just in time."""


def run(work: Context) -> str:
    """Write the newest round's queue, and make the label stream follow it."""
    started = time.monotonic()
    with work.services.store.reading() as session:
        current = work.newest_round(session, "queueing")
    if current is None:
        return "no round waits to be queued"
    version, picks = _new_edition(work, current)
    if not picks:
        return _nothing_to_queue(work, current)
    _send(work, current, version, picks)
    with work.services.store.reading() as session:
        work.check_cancelled(session)  # from here on, the label stream follows it
    work.client.serve(version)
    view_id = work.client.show_queue(version, work.project.view_id)
    with work.services.store.transaction() as session:
        begun = session.get_one(Round, current.id)
        # Not earlier: until now, `/predict` answers for the edition that the label stream follows.
        begun.queue_version = version
        # A training that ended meanwhile may have given it up, but the label stream follows it now.
        begun.state, begun.closed_at = "open", None
        begun.seconds = {**begun.seconds, "queue": time.monotonic() - started}
        project = session.get_one(Project, work.project.id)
        project.queue_version, project.view_id = version, view_id
        project.clear_problem()
        close_older(session, begun)
        forget_older(session, begun)
        if not is_refresh(session, begun):
            note(session, project.id, f"Round {begun.number} is open: {len(picks)} images queued")
        facts = read_facts(session, project.id, work.settings)
        project.labels_missing = labels_missing(facts)
        if decide(facts).step is not None:
            work.request(session, "sync", "labels that came meanwhile")
    forget_old_scores(work, current)
    return f'{len(picks)} images queued as "{version}"'


def top_up(work: Context) -> str | None:
    """Queue more of the open round's ranking if little of its queue is left."""
    with work.services.store.transaction() as session:
        current = open_round(session, work.project)
        if current is None:
            return None
        interrupted = select(Pick.rank).filter_by(round_id=current.id, state="sending")
        if session.scalars(interrupted).first() is not None:
            # A kill interrupted an earlier top-up: write the whole queue again.
            current.state = "queueing"
            work.request(session, "queue", "an interrupted top-up")
            return "the queue is written again"
        reserve = work.settings.reserve_size
        # What somebody skipped stays for others, but whoever skipped it needs other images.
        if len(unlabelled_picks(session, current, "queued").fresh) >= reserve:
            return None
        more = unlabelled_picks(session, current, "ranked").front(reserve)
        if not more:
            return None
        _mark(session, current, more, "sending")
    version = current.queue_version or ""
    # Opening a task makes Label Studio request its prediction, so it is in the queue already.
    there = work.client.tasks_with(version)
    _send(work, current, version, [pick for pick in more if pick.task_id not in there])
    with work.services.store.transaction() as session:
        _mark(session, current, more, "queued")
    return f"{len(more)} more images queued"


def _new_edition(work: Context, current: Round) -> tuple[str, list[Pick]]:
    """A new queue version, and the picks that go into it, marked as being sent."""
    taken = _taken_names(work)
    with work.services.store.transaction() as session:
        begun = session.get_one(Round, current.id)
        left = unlabelled_picks(session, begun)
        # Queued picks stay queued; a new round starts with its first picks.
        sent = sum(pick.state != "ranked" for pick in left.picks)
        wanted = _wanted(work, session, begun)
        picks = left.picks[: max(len(left.front(wanted)), sent)]
        begun.editions += 1
        while (version := queue_version(begun)) in taken:
            begun.editions += 1
        _mark(session, begun, picks, "sending")
        taken.add(version)
        return version, picks


def _taken_names(work: Context) -> set[str]:
    """Names that a new queue version must not have: those that Label Studio knows already.

    The store may have been restored from a backup and not know them. They are read once per
    process, since nobody else makes new ones.
    """
    remembered = work.services.remembered(work.project)
    if remembered.queue_versions is None:
        remembered.queue_versions = set(work.client.prediction_counts())
    return remembered.queue_versions


def _wanted(work: Context, session: Session, current: Round) -> int:
    """How many images a new queue has: what is labelled before the next one, and the reserve."""
    before_next = current.budget
    if is_refresh(session, current):
        before_next = max(0, current.budget - labels_in(session, current))
        if work.settings.trains_every is not None:  # and as many while that training runs
            before_next = min(before_next, 2 * work.settings.trains_every)
    return before_next + work.settings.reserve_size


def _mark(session: Session, current: Round, picks: Sequence[Pick], state: str) -> None:
    for ranks in chunks([pick.rank for pick in picks], IDS_PER_QUERY):
        session.execute(
            update(Pick)
            .where(Pick.round_id == current.id, Pick.rank.in_(ranks))
            .values(state=state)
        )


def _send(work: Context, current: Round, version: str, picks: Sequence[Pick]) -> None:
    """Import predictions for these picks and record them as queued."""
    with work.services.store.reading() as session:
        ranked = count_ranked(session, current)
        parts = parts_of(session, current, work.controls, [pick.task_id for pick in picks])
        tasks = count_tasks(session, work.project.id)
    one_by_one = len(picks) * TASKS_PER_PREDICTION <= tasks
    most = FEW if one_by_one else CHUNK
    done = 0
    chunk: list[dict[str, Any]] = []
    characters = 0
    for pick in picks:
        work.report(done / len(picks), f"{done} of {len(picks)} images queued")
        prediction = {
            "task": pick.task_id,
            "result": joined([part.result(work.settings, pick.task_id) for part in parts]),
            "score": rank_score(pick.rank, ranked),
            "model_version": version,
        }
        chunk.append(prediction)
        characters += len(json.dumps(prediction))
        if len(chunk) == most or characters >= CHUNK_CHARACTERS:
            _import(work, chunk, one_by_one)
            done += len(chunk)
            chunk, characters = [], 0
    if chunk:
        _import(work, chunk, one_by_one)
    with work.services.store.transaction() as session:
        _mark(session, current, picks, "queued")


def _import(work: Context, predictions: Sequence[dict[str, Any]], one_by_one: bool) -> None:
    """Import predictions; those that Label Studio leaves out are queued without their result."""
    refused: dict[int, list[str]] = {}
    if one_by_one:  # Label Studio takes whatever comes alone
        refused = _problems_of(work, predictions)
    sound = [p for p in predictions if p["task"] not in refused]
    try:
        taken = work.client.import_predictions(sound, one_by_one)
    except LabelStudioError as error:
        if error.status == 400:  # one unknown task fails a whole import
            existing = work.client.task_ids()
            with work.services.store.transaction() as session:
                forget_all_but(session, work.project.id, existing)
        raise
    if taken == len(predictions):
        return
    refused = refused or _problems_of(work, predictions)
    task_id, problems = next(iter(refused.items()), (None, []))
    with work.services.store.transaction() as session:
        note(
            session,
            work.project.id,
            f"Label Studio left out {len(predictions) - taken} predictions; they are queued "
            f"without a result. Task {task_id}: {'; '.join(problems)[:300]}",
            "warning",
        )
    bare = [{**p, "result": []} for p in predictions if p["task"] in refused]
    if len(bare) + taken != len(predictions) or (
        work.client.import_predictions(bare, one_by_one) != len(bare)
    ):
        raise LabelStudioError(
            f"Label Studio took {taken} of {len(predictions)} predictions and did not say why."
        )


def _problems_of(work: Context, predictions: Sequence[dict[str, Any]]) -> dict[int, list[str]]:
    """Why the labeling config does not allow some of these predictions, by task."""
    interface = LabelInterface(work.project.labeling_config)
    return {
        prediction["task"]: problems
        for prediction in predictions
        if (problems := interface.validate_prediction(prediction, return_errors=True))
    }


def _nothing_to_queue(work: Context, current: Round) -> str:
    with work.services.store.transaction() as session:
        begun = session.get_one(Round, current.id)
        begun.state, begun.closed_at = "closed", now()
        close_older(session, begun)
        note(session, work.project.id, "Every image that can be used is labelled")
    return "every image that can be used is labelled"
