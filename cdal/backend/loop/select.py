"""Select: rank the unlabelled images, the most informative first."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session
from torch.nn.functional import normalize

from cdal.backend.errors import DamagedScoresError
from cdal.backend.loop.changes import ensure_read
from cdal.backend.loop.context import Context
from cdal.backend.loop.near_duplicates import originals_of
from cdal.backend.loop.opinions import with_opinions
from cdal.backend.loop.policy import select_by_policy
from cdal.backend.loop.pool_scores import Scores
from cdal.backend.loop.put_first import put_first
from cdal.backend.loop.rounds import scored_by, served_picks, versions_of
from cdal.backend.loop.score_files import ARRAYS
from cdal.backend.store.events import note
from cdal.backend.store.queries import count_labelled, still_served, waiting
from cdal.backend.store.tables import ModelVersion, Round, Task
from cdal.backend.store.tables import Pick as PickRow
from cdal.models import choose_device, free_memory
from cdal.selectors import (
    Pick,
    Pool,
    PoolError,
    Progress,
    Selection,
    Selector,
    arrays_read,
    make_selector,
)

log = logging.getLogger(__name__)

RANKED_AT_LEAST = 1000
RANKED_QUEUES = 10
"""A round ranks enough for many queues at once, so that a top-up needs no new selection."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The pool as a selector takes it, with the task of each row."""

    pool: Pool
    task_ids: list[int]


def run(work: Context) -> str:
    """Rank the pool for the newest round, then request its queue."""
    started = time.monotonic()
    # What is labelled by now is neither picked again nor counted as a label of this round.
    ensure_read(work)
    with work.services.store.reading() as session:
        current = work.newest_round(session, "selecting")
        if current is None:
            return "no round waits for a selection"
        candidates = candidates_of(work, session, current, [current.selector])
        labelled = count_labelled(session, work.project.id)
        skipped = waiting(work.project.id) & (Task.skips > 0)
        skips = session.scalar(select(func.count()).where(skipped)) or 0
        served = [drawn for _, drawn in served_picks(session, current)]
    selection = _rank(work, current, candidates, skips, served)
    with work.services.store.transaction() as session:
        begun = session.get_one(Round, current.id)
        work.check_cancelled(session)
        if begun.state != "selecting":
            return f"round {begun.number} was given up for a newer one"
        ranking = {
            candidates.task_ids[pick.index]: (
                pick.score,
                _with_tasks(pick.reason, candidates.task_ids),
            )
            for pick in selection.picks
        }
        ranking = put_first(session, begun.project_id, ranking)
        session.execute(delete(PickRow).where(PickRow.round_id == begun.id))
        rows = [
            {
                "round_id": begun.id,
                "rank": rank,
                "task_id": task_id,
                "state": "ranked",
                "score": score,
                "reason": reason,
            }
            for rank, (task_id, (score, reason)) in enumerate(ranking.items())
        ]
        if rows:
            session.execute(insert(PickRow), rows)
        counts_from = labelled if begun.counts_from is None else begun.counts_from
        begun.labels = min(labelled, counts_from)  # fewer if some were deleted
        begun.warnings = list(selection.warnings)
        begun.seconds = {**begun.seconds, "select": time.monotonic() - started}
        begun.state = "queueing"
        for warning in selection.warnings:
            note(session, work.project.id, f"Round {begun.number}: {warning}", "warning")
        work.request(session, "queue", f"round {begun.number}")
    return f"{len(rows)} images ranked by {current.selector}"


def candidates_of(
    work: Context, session: Session, current: Round, selectors: Collection[str]
) -> Candidates:
    """Unlabelled images that can be used, and labelled ones that picks should differ from.

    An image that a skip ended is neither: nobody labelled it, and nobody is served it again.

    Args:
        work: the job.
        session: of the store.
        current: the round whose model has scored the pool.
        selectors: the names of those that are to rank it, so that only what they need is read.

    Raises:
        DamagedScoresError: the pool's scores are damaged or gone, as when a data folder was
            restored without them.
    """
    usable = still_served(work.project.id) & Task.image_problem.is_(None)
    rows = session.execute(
        select(Task.task_id, Task.annotations > 0)
        .where(Task.project_id == work.project.id)
        .where((Task.annotations > 0) | usable)
        .order_by(Task.task_id)
    ).all()
    labelled = {int(task_id): bool(is_labelled) for task_id, is_labelled in rows}
    number = scored_by(session, current)
    if number is None:
        return _unseen(labelled)
    folder = work.services.config.scores_folder(work.project.id, number)
    scores = Scores.load(folder, arrays_for(selectors), among=labelled)
    if scores is None:
        if not all(labelled.values()):
            raise DamagedScoresError(None)
        return _unseen(labelled)
    beside = []
    for version in _counted_beside(work, session, current):
        folder = work.services.config.scores_folder(work.project.id, version.number)
        beside.append(Scores.load(folder, arrays_for(selectors), among=labelled))
    scores, *others = Scores.of_the_same([scores, *(each for each in beside if each is not None)])
    task_ids = scores.task_ids.tolist()
    flags = [labelled[task_id] for task_id in task_ids]
    pool = _together(scores.pool(flags), [each.pool(flags) for each in others])
    return Candidates(pool, task_ids)


def _counted_beside(work: Context, session: Session, current: Round) -> Sequence[ModelVersion]:
    """The round's model versions by which images are chosen, too, beside the main one."""
    return versions_of(session, current)[1:] if work.settings.select_by is None else ()


def _together(pool: Pool, others: Sequence[Pool]) -> Pool:
    """The pool as several models see it.

    What is uncertain to each of them is summed, and features are joined, those of each model scaled
    to length 1, so that each counts as much.
    """
    if not others:
        return pool
    uncertainties = [p.uncertainties for p in (pool, *others) if p.uncertainties is not None]
    features = [normalize(p.features) for p in (pool, *others) if p.features is not None]
    return replace(
        pool,
        uncertainties=torch.stack(uncertainties).sum(0) if uncertainties else None,
        features=torch.cat(features, 1) if features else None,
        beside=tuple(replace(other, features=None) for other in others),
    )


def arrays_for(selectors: Collection[str]) -> frozenset[str]:
    """The arrays of scores that at least one of these selectors needs.

    Features alone may take gigabytes.
    """
    needed: set[str] = set()
    for name in selectors:
        read = arrays_read(name)
        needed |= frozenset(ARRAYS) if read is None else read
    return frozenset(needed)


def _unseen(labelled: Mapping[int, bool]) -> Candidates:
    """A pool that no model has scored: enough for random selection."""
    count = len(labelled)
    pool = Pool(
        mixtures=torch.zeros(count, 1, 1),
        present=torch.zeros(count, 1, dtype=torch.bool),
        labelled=torch.tensor(list(labelled.values()), dtype=torch.bool),
    )
    return Candidates(pool, list(labelled))


def _rank(
    work: Context, current: Round, candidates: Candidates, skips: int, served: Sequence[bool]
) -> Selection:
    """The selector's picks, mixed with a share of random ones to measure its savings by.

    Args:
        work: the selection.
        current: the round.
        candidates: the pool.
        skips: how many of them somebody skipped; as many more are ranked, since not everyone is
            served those.
        served: of each image that earlier orders of the round have served, whether it was random.
    """
    wanted = current.budget + work.settings.reserve_size
    ranked = max(RANKED_QUEUES * wanted, RANKED_AT_LEAST) + skips
    ranked = min(ranked, len(candidates.pool.unlabelled))
    if current.selector == "random":
        return Selection("random", draw(candidates, ranked, work.settings.seed))
    share = work.settings.random_share
    if not share:
        selection = _by_selector(work, current, candidates.pool, wanted, ranked)
        return _once(work, current, candidates, selection)
    # Drawn first, so that each image is as likely as any other.
    drawn = draw(candidates, max(1, round(ranked * share)), work.settings.seed)
    rest = _taken(candidates.pool, drawn)
    selection = _by_selector(work, current, rest, wanted, ranked - len(drawn))
    selection = _once(work, current, candidates, selection)
    return replace(selection, picks=mixed(selection.picks, drawn, share, served))


def _once(work: Context, current: Round, candidates: Candidates, selection: Selection) -> Selection:
    """A selector's ranking with near-duplicates of labelled or earlier images behind all others."""
    with work.services.store.reading() as session:
        number = scored_by(session, current)
    if number is None:
        return selection
    folder = work.services.config.scores_folder(work.project.id, number)
    labelled = candidates.pool.labelled.nonzero()[:, 0].tolist()
    rows = [pick.index for pick in selection.picks]
    wanted = {candidates.task_ids[row] for row in [*labelled, *rows]}
    scores = Scores.load(folder, {"features"}, among=wanted) if rows else None
    if scores is None:
        return selection
    places = {task_id: place for place, task_id in enumerate(scores.task_ids.tolist())}
    known = [row for row in labelled if candidates.task_ids[row] in places]

    def features(of: Sequence[int]) -> torch.Tensor:
        return scores.features[[places[candidates.task_ids[row]] for row in of]]

    originals = originals_of(features(rows), features(known))
    earlier = [*known, *rows]
    repeats = {
        row: earlier[original]
        for row, original in zip(rows, originals, strict=True)
        if original is not None
    }
    first = [pick for pick in selection.picks if pick.index not in repeats]
    last = [
        replace(pick, reason={**pick.reason, "near_duplicate_of": repeats[pick.index]})
        for pick in selection.picks
        if pick.index in repeats
    ]
    return replace(selection, picks=(*first, *last))


def draw(candidates: Candidates, count: int, seed: int) -> tuple[Pick, ...]:
    """Unlabelled images, drawn at random.

    The seed puts all images that a project will ever have in one random order, from which the next
    ones are drawn. So a refreshed order draws what the one before it had drawn and nobody has
    labelled yet: what somebody is just labelling stays a random draw, and is not lost to the sample
    because it takes long.
    """
    rows = {candidates.task_ids[row]: row for row in candidates.pool.unlabelled.tolist()}
    return tuple(Pick(rows[task_id], 0.0) for task_id in draw_order(list(rows), seed)[:count])


def draw_order(task_ids: Sequence[int], seed: int) -> list[int]:
    """These tasks in the one random order into which the seed puts all tasks, see `draw`."""

    def place(task_id: int) -> bytes:
        return hashlib.sha256(f"draw {seed} {task_id}".encode()).digest()

    return sorted(task_ids, key=place)


def mixed(
    picks: Sequence[Pick], drawn: Sequence[Pick], share: float, served: Sequence[bool] = ()
) -> tuple[Pick, ...]:
    """Picks mixed with random draws, so that any front part of the queue has its share of them.

    `served` says which of the images before these were random; their share counts as well.
    """
    marked = [replace(pick, reason={"random": True}) for pick in drawn]
    found: list[Pick] = []
    left, right = 0, 0
    while left < len(picks) or right < len(marked):
        wanted = math.floor((len(served) + len(found) + 1) * share + 1e-9)
        due = wanted > sum(served) + right
        if right < len(marked) and (due or left == len(picks)):
            found.append(marked[right])
            right += 1
        elif left < len(picks):
            found.append(picks[left])
            left += 1
    return tuple(found)


def _by_selector(work: Context, current: Round, pool: Pool, wanted: int, ranked: int) -> Selection:
    """The selector's picks for the queue, followed by more to top it up from.

    They are made on the server's device, or on the CPU if the pool does not fit into its memory.
    """
    # The current options, unless another selector was chosen since this round began.
    chosen = work.settings.selector == current.selector
    options = work.settings.selector_options if chosen else {}

    def progress(share: float) -> None:
        work.report(share, f"selecting by {current.selector}")

    try:
        pool = with_opinions(work, current, pool, current.selector)
    except PoolError as error:
        # People must have a queue, and the next model may have what this one lacks.
        found = make_selector(INSTEAD).select(pool, ranked, current.seed, progress)
        return replace(found, warnings=(f'the images are ranked by "{INSTEAD}": {error}.',))
    device = choose_device(work.services.config.device)
    if device.type != "cpu":
        try:
            return _ranked(work, current, pool.to(device), options, wanted, ranked, progress)
        except torch.OutOfMemoryError:
            free_memory()
            log.warning("The pool does not fit into the GPU's memory: ranked on the CPU.")
    return _ranked(work, current, pool, options, wanted, ranked, progress)


def _ranked(
    work: Context,
    current: Round,
    pool: Pool,
    options: Mapping[str, Any],
    wanted: int,
    ranked: int,
    progress: Progress,
) -> Selection:
    """The picks for the queue and those behind them, made on the pool's device."""
    selector = make_selector(current.selector, options)
    if current.selector == "typiclust":
        return in_parts(selector, pool, parts_of(ranked, wanted), current.seed, progress)
    if current.selector in ("dropquery", "suggestive-annotation"):
        first_part = min(wanted, ranked)
        parts = [first_part, ranked - first_part]
        return in_parts(selector, pool, parts, current.seed, progress)
    if current.selector not in BEYOND:
        return selector.select(pool, ranked, current.seed, progress)
    if current.selector == "cdal-rl":
        first = select_by_policy(work, pool, options, wanted, current.seed, progress)
    else:
        first = selector.select(pool, wanted, current.seed, progress)
    rest = make_selector(BEYOND[current.selector]).select(
        _taken(pool, first.picks), max(0, ranked - wanted), current.seed, lambda _: progress(1.0)
    )
    return Selection(first.selector, first.picks + rest.picks, first.warnings, first.report)


BEYOND: Mapping[str, str] = {"cdal-rl": "cdal-cs", "badge": "margin"}
"""What ranks the images behind the queue where a selector would take long: the policy of CDAL-RL
learns for one budget, and BADGE looks at the whole pool for each pick."""

INSTEAD = "margin"
"""What ranks the pool if the model cannot give the opinions that a selector compares."""

FIRST_PART = 10
"""Images that TypiClust picks first; docs/method.md has what this is worth."""


def parts_of(ranked: int, wanted: int) -> list[int]:
    """The parts in which TypiClust makes a ranking: each as long as all before it.

    It makes as many clusters as images are labelled or to be picked, so that each pick stands for
    as much of the pool as it can. Of a ranking made at once, the first ten would be of as small
    clusters as the last ten. What is not wanted in the queue is one part.
    """
    parts: list[int] = []
    while (done := sum(parts)) < min(wanted, ranked):
        parts.append(min(max(FIRST_PART, done), min(wanted, ranked) - done))
    return [*parts, ranked - done] if ranked > done else parts


def in_parts(
    selector: Selector, pool: Pool, parts: Sequence[int], seed: int, progress: Progress
) -> Selection:
    """A ranking that is made part by part; the picks of earlier parts count as labelled."""
    picks: tuple[Pick, ...] = ()
    for number, part in enumerate(parts):
        progress(number / len(parts))
        picks += selector.select(_taken(pool, picks), part, seed, lambda _: None).picks
    return Selection(selector.name, picks)


def _taken(pool: Pool, picks: Sequence[Pick]) -> Pool:
    """The pool as if these picks were labelled."""
    labelled = pool.labelled.clone()
    labelled[[pick.index for pick in picks]] = True
    return replace(pool, labelled=labelled)


def _with_tasks(reason: Mapping[str, object], task_ids: list[int]) -> dict[str, object]:
    """A pick's reason, with other images named by task instead of by row of the pool."""
    rows = {name: reason.get(name) for name in ("nearest", "near_duplicate_of")}
    named = {name: task_ids[row] for name, row in rows.items() if isinstance(row, int)}
    return {**reason, **named}
