"""Pictures from kept scores: where two selectors pick, and the mixtures of picked images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cdal.benchmark.data_set import Part
from cdal.benchmark.report.plots import (
    PickedImage,
    embed,
    embedding_picks,
    mixture_bars,
    picks_together,
)
from cdal.benchmark.report.record import Record, Run, Step
from cdal.benchmark.report.summary import BASELINE
from cdal.benchmark.scores import KeptScores, read_scores

CD = ("cdal-cs", "cdal-rl", "cd-greedy")
"""Selectors by contextual diversity."""
TOGETHER = ("core-set", "cdal-cs", "cdal-rl")
"""Selectors of the paper's figure 7a."""
MOST_POINTS = 3000
"""Images on a map; in a larger pool, all picks and a sample of the other images are drawn."""
IMAGES = 4
"""Number of picked images drawn with their mixtures."""


def map_of_picks(folder: Path, record: Record) -> Figure | None:
    """Draw the first picks of two selectors in the pool, as their common model sees it.

    In the first round all selectors of a seed have the same model and the same labels. The two
    are one of CDAL's and the best-known other one, if both were run.

    Returns:
        None if no scores were kept, or fewer than two selectors picked by them.
    """
    runs = {run.selector: run for run in _first_seed(record)}
    pair = _pair(list(runs))
    scores = _scores_of_first_round(folder, list(runs.values()))
    if scores is None or len(pair) < 2 or len(scores.features) < 4:
        return None
    labelled = [scores.rows[name] for name in runs[pair[0]].steps[0].picked]
    picks = {name: [scores.rows[image] for image in runs[name].steps[1].picked] for name in pair}
    kept = _some(
        len(scores.features), [*labelled, *(row for rows in picks.values() for row in rows)]
    )
    place = {row: number for number, row in enumerate(kept)}
    return embedding_picks(
        embed(scores.features[kept]),
        {name: [place[row] for row in rows] for name, rows in picks.items()},
        [place[row] for row in labelled],
    )


def map_of_all_picks(folder: Path, record: Record) -> Figure | None:
    """Draw the first picks of core-set, CDAL-CS and CDAL-RL in one map; see ``map_of_picks``.

    Returns:
        None if no scores were kept, or fewer than two of the three picked by them.
    """
    runs = {run.selector: run for run in _first_seed(record) if run.selector in TOGETHER}
    scores = _scores_of_first_round(folder, list(runs.values()))
    if scores is None or len(runs) < 2 or len(scores.features) < 4:
        return None
    wanted = {
        name: [scores.rows[image] for image in runs[name].steps[1].picked]
        for name in TOGETHER
        if name in runs
    }
    first = next(iter(runs.values()))
    labelled = [scores.rows[name] for name in first.steps[0].picked]
    kept = _some(
        len(scores.features), [*labelled, *(row for rows in wanted.values() for row in rows)]
    )
    place = {row: number for number, row in enumerate(kept)}
    return picks_together(
        embed(scores.features[kept]),
        {name: [place[row] for row in rows] for name, rows in wanted.items()},
        [place[row] for row in labelled],
    )


def mixtures_of_picks(folder: Path, record: Record, pool: Part) -> Figure | None:
    """Draw the last picks of a CDAL run, with their regions and class mixtures.

    The regions are those of the label, revealed after the pick.

    Returns:
        None if no scores of such a run were kept.
    """
    for run in _first_seed(record):
        if not run.selector.startswith(CD):
            continue
        for before, after in reversed(list(zip(run.steps, run.steps[1:], strict=False))):
            scores = read_scores(folder, run.selector, run.seed, before.labelled)
            if scores is not None:
                images = _picked_images(record.dataset["task"], scores, after, pool)
                # A detector's background may be an additional class.
                return mixture_bars(images, [*record.dataset["classes"], "background"])
    return None


def _first_seed(record: Record) -> list[Run]:
    """The runs of the lowest seed that have picked anything."""
    runs = [run for run in record.runs if len(run.steps) > 1]
    lowest = min((run.seed for run in runs), default=0)
    return [run for run in runs if run.seed == lowest]


def _pair(selectors: Sequence[str]) -> list[str]:
    """One selector of CDAL and one other, or else the first two."""
    ours = [name for name in selectors if name.startswith(CD)]
    others = [name for name in selectors if name not in ours]
    others.sort(key=lambda name: (name != "core-set", name == BASELINE))
    return [*others[:1], *ours[:1]] if ours and others else list(selectors[:2])


def _scores_of_first_round(folder: Path, runs: Sequence[Run]) -> KeptScores | None:
    for run in runs:
        scores = read_scores(folder, run.selector, run.seed, run.steps[0].labelled)
        if scores is not None:
            return scores
    return None


def _some(count: int, wanted: Sequence[int]) -> list[int]:
    """These rows and a sample of the others, ascending; the same sample every time."""
    others = np.setdiff1d(np.arange(count), wanted)
    room = max(MOST_POINTS - len(set(wanted)), 0)
    drawn = np.random.default_rng(0).permutation(others)[:room]
    return sorted({*wanted, *drawn.tolist()})


def _picked_images(task: str, scores: KeptScores, step: Step, pool: Part) -> list[PickedImage]:
    rows = {name: row for row, name in enumerate(pool.names)}
    images = []
    for name in step.picked[:IMAGES]:
        image, target = pool[rows[name]]
        row = scores.rows[name]
        images.append(
            PickedImage(
                title=name.rsplit("/", 1)[-1],
                image=image.permute(1, 2, 0).numpy(),
                mixtures=scores.mixtures[row],
                present=scores.present[row],
                mask=target.numpy() if task == "segmentation" else None,
                boxes=target.numpy() if task == "detection" else None,
            )
        )
    return images
