"""Score: let the serving models see every image, for selection and for predictions."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from cdal.backend.errors import DamagedScoresError, ImageError
from cdal.backend.loop.context import Context
from cdal.backend.loop.embed import embed
from cdal.backend.loop.engines.choice import engine_of
from cdal.backend.loop.image_problems import record_problems, refuse_if_away
from cdal.backend.loop.inference import Scored
from cdal.backend.loop.pool_sample import sampled
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.loop.rounds import UNFINISHED, begin_round, versions_of
from cdal.backend.loop.versions import serve_last_good
from cdal.backend.project_config import paired
from cdal.backend.store.events import note
from cdal.backend.store.queries import IDS_PER_QUERY, chunks, rows_of, serving_versions
from cdal.backend.store.tables import ModelVersion, Prediction, Project, Round, Task
from cdal.mixture_kind import MixtureKind
from cdal.models import ModelError, choose_device, load_network
from cdal.models.detection.architectures import has_background
from cdal.models.detection.regions import MIN_CONFIDENCE

log = logging.getLogger(__name__)

CHUNK = 1024
"""Images whose scores are saved together; a kill loses at most this much work."""

CHUNK_BYTES = 256 * 2**20
"""The same limit in bytes: with hundreds of classes, C×C mixtures per image add up sooner."""

AWAY_AFTER = 200
"""If this many images are away and none was scored before, the others are away as well."""


def run(work: Context) -> str:
    """Score what each of the round's models has not scored yet, then request the selection.

    Before there is a model, a backbone alone looks at the pool.
    """
    started = time.monotonic()
    with work.services.store.reading() as session:
        current = work.newest_round(session, "scoring")
        if current is None:
            return "no round waits for scores"
        if current.model_version_id is None:
            return embed(work, current)
        versions = versions_of(session, current)
        wanted = sampled(session, current, work.settings)
        tasks = _tasks(session, work.project.id, wanted)
    pairs = paired({version.control: version.classes for version in versions}, work.controls)
    if versions[0].control not in pairs:
        return _begin_again(work, "its control was removed from the labeling config: a new round")
    found = [version for version in versions if version.control in pairs]
    parts = work.parts([pairs[version.control] for version in found])
    try:
        counts = [
            _score_by(part, version, tasks) for part, version in zip(parts, found, strict=True)
        ]
    except ModelError:
        # Another process, or this one at its start, may have found the damage before.
        serve_last_good(work.services, work.project.id)
        with work.services.store.reading() as session:
            serving = {version.id for version in serving_versions(session, work.project.id)}
        if serving.issuperset(version.id for version in found):
            raise
        return _begin_again(work, "its model cannot be loaded: a new round")
    with work.services.store.transaction() as session:
        begun = session.get_one(Round, current.id)
        work.check_cancelled(session)
        if begun.state == "scoring":  # else a newer round has taken its place
            begun.state = "selecting"
            begun.seconds = {**begun.seconds, "score": time.monotonic() - started}
            work.request(session, "select", f"round {begun.number}")
    scored, problems = (max(counted) for counted in zip((0, 0), *counts, strict=True))
    left_out = f", {problems} left out since they could not be used" if problems else ""
    return f"{scored} images scored{left_out}"


def _begin_again(work: Context, why: str) -> str:
    """Begin another round with the models that serve now; returns what happened, in words."""
    with work.services.store.transaction() as session:
        work.check_cancelled(session)
        begin_round(session, work.services.jobs, work.project.id)
    return f"{why} begins with what serves now"


def _tasks(
    session: Session, project_id: int, wanted: Collection[int] | None
) -> list[tuple[int, object]]:
    """These tasks of a project with their images, or all, by id."""
    columns = (Task.task_id, Task.image)
    if wanted is None:
        every = select(*columns).where(Task.project_id == project_id).order_by(Task.task_id)
        return [(task_id, image) for task_id, image in session.execute(every)]
    return [(task_id, image) for task_id, image in rows_of(session, project_id, wanted, *columns)]


def _score_by(
    work: Context, version: ModelVersion, tasks: Sequence[tuple[int, object]]
) -> tuple[int, int]:
    """Score what a version has not scored yet.

    Returns:
        How many images were scored, and how many had a problem.
    """
    with work.services.store.reading() as session:
        known = set(
            session.scalars(select(Prediction.task_id).filter_by(model_version_id=version.id))
        )
    folder = work.services.config.scores_folder(work.project.id, version.number)
    removed = Scores.remove_damaged(folder)
    if removed:
        log.warning("%d damaged files of scores were removed; they are made again", removed)
    _keep_one_kind(folder, mixture_kind_of(work, version))
    # An image needs both: files may be lost, as when a data folder is restored without its scores.
    known &= Scores.scored(folder)
    todo = [(task_id, image) for task_id, image in tasks if task_id not in known]
    problems = _score(work, version, todo, len(tasks))
    return len(todo) - problems, problems


def score_again(work: Context, damage: DamagedScoresError) -> str:
    """Have those images scored again whose kept scores a job found damaged.

    A round that waits for its selection goes back a step. The scores of an open round are only
    looked at, and a new round makes them again; a paused project waits for it.
    """
    with work.services.store.transaction() as session:
        work.check_cancelled(session)
        current = work.newest_round(session, *UNFINISHED)
        if current is not None and current.state == "selecting":
            current.state = "scoring"
            work.request(session, "score", "damaged scores")
        elif current is None and session.get_one(Project, work.project.id).paused_at is None:
            begin_round(session, work.services.jobs, work.project.id)
        else:
            return f"{damage} The next round scores its images again"
        note(session, work.project.id, f"{damage} Its images are scored again.", "warning")
    return f"{damage} Its images are scored again"


def _score(work: Context, version: ModelVersion, todo: list[tuple[int, object]], total: int) -> int:
    """Score these images, and save scores and findings chunk by chunk.

    Returns:
        How many had a problem.
    """
    if not todo:
        return 0
    config = work.services.config
    folder = config.version_folder(work.project.id, version.number)
    device = choose_device(config.device)
    network = load_network(folder, device, sources=work.services.weight_sources)
    reader = work.services.input_reader(work.project)
    problems: dict[int, ImageError] = {}
    chunk: list[Scored] = []
    done = 0

    def problem(task_id: int, why: ImageError) -> None:
        problems[task_id] = why
        work.check_stop()
        if len(problems) == AWAY_AFTER and not done and len(todo) == total:
            refuse_if_away(work, problems, len(problems))

    engine = engine_of(work)
    for scored in engine.scored(reader, network, todo, mixture_kind_of(work, version), problem):
        chunk.append(scored)
        done += len(scored[0])
        if _is_full(chunk):
            _save(work, version, chunk)
            chunk = []
            work.give_way()
        share = (done + len(problems)) / len(todo)
        work.report(share, f"{done + len(problems)} of {len(todo)} images scored")
    if chunk:
        _save(work, version, chunk)
    refuse_if_away(work, problems, total)
    record_problems(work, problems)
    return len(problems)


def _is_full(chunk: Sequence[Scored]) -> bool:
    images = sum(len(scores) for scores, _ in chunk)
    return images >= CHUNK or sum(scores.nbytes for scores, _ in chunk) >= CHUNK_BYTES


def mixture_kind_of(work: Context, version: ModelVersion) -> MixtureKind:
    """The class mixtures that the project's settings ask for.

    A class that the version has not learnt, since its label is new, is left out; if that leaves
    none, all classes count.
    """
    settings = work.settings
    region = settings.region
    if region == "auto":
        region = "image" if work.control.task == "classification" else "class"
    wanted = settings.classes or ()
    classes = tuple(row for row, name in enumerate(version.classes) if name in wanted)
    confidence = settings.box_confidence
    return MixtureKind(
        region=region,
        weights=settings.mixture_weights,
        classes=classes or None,
        confidence=MIN_CONFIDENCE if confidence is None else confidence,
        # A head of an earlier round has none.
        background=settings.box_background == "keep" and has_background(version.architecture),
    )


def _keep_one_kind(folder: Path, kind: MixtureKind) -> None:
    """Remove scores whose class mixtures are of another kind: a setting has changed."""
    mark = folder / "mixtures.json"
    text = json.dumps(asdict(kind))
    if mark.exists():
        same = mark.read_text() == text
    else:  # written by an earlier version, which knew one setting
        per_image = Scores.mixtures_an_image(folder)
        older = MixtureKind("image" if per_image == 1 else "class")
        same = per_image is None or kind == older
    if not same:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(text)


def _save(work: Context, version: ModelVersion, chunk: Sequence[Scored]) -> None:
    """Save the tensors, then the store's record: images without a record are scored again."""
    scores = Scores.concatenate([scores for scores, _ in chunk])
    scores.save(work.services.config.scores_folder(work.project.id, version.number))
    findings = [finding for _, findings in chunk for finding in findings]
    rows = [
        {"model_version_id": version.id, "task_id": task_id, "finding": finding}
        for task_id, finding in zip(scores.task_ids.tolist(), findings, strict=True)
    ]
    with work.services.store.transaction() as session:
        for ids in chunks(scores.task_ids.tolist(), IDS_PER_QUERY):
            session.execute(
                delete(Prediction).where(
                    Prediction.model_version_id == version.id, Prediction.task_id.in_(ids)
                )
            )
        session.execute(insert(Prediction), rows)
        session.execute(
            update(Task)
            .where(Task.project_id == work.project.id, Task.image_problem.is_not(None))
            .where(Task.task_id.in_(scores.task_ids.tolist()))
            .values(image_problem=None)
        )
