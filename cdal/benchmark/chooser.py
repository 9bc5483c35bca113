"""Chooses which images are labelled next, by a network's scores of the pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cdal.benchmark.curve import Curve
from cdal.benchmark.folder import SimulationFolder, finite
from cdal.benchmark.loaded_data import LoadedData
from cdal.benchmark.scores import Scores, score, unseen_pool
from cdal.benchmark.stopwatch import Stopwatch
from cdal.models import TaskNetwork


@dataclass(frozen=True, slots=True)
class Scored:
    """A network's scores of the pool, and the seconds they took, by part."""

    scores: Scores
    seconds: dict[str, float]


class Chooser:
    """Scores the pool and selects images.

    Args:
        loaded: the data, with the pool.
        folder: where policies are kept, and scores if wanted.
        keep_scores: whether to keep the scores.
    """

    def __init__(self, loaded: LoadedData, folder: SimulationFolder, keep_scores: bool) -> None:
        self._loaded = loaded
        self._folder = folder
        self._keep_scores = keep_scores

    def score(
        self, curves: Sequence[Curve], network: TaskNetwork, progress: Callable[[float], None]
    ) -> Scored | None:
        """The network's scores, as all these curves need them; None if no curve needs any."""
        kinds = dict.fromkeys(curve.kind for curve in curves if curve.needs_scores)
        if not kinds:
            return None
        watch = Stopwatch(self._loaded.device)
        with watch.part("score"):
            scores = score(network, self._loaded.pool, kinds, progress)
        return Scored(scores, watch.seconds("score"))

    def choose(
        self,
        curve: Curve,
        seed: int,
        rows: Sequence[int],
        count: int,
        scored: Scored | None,
        progress: Callable[[float], None],
    ) -> dict[str, Any]:
        """The choice of a curve's selector, as JSON data.

        Args:
            curve: the curve whose selector picks.
            seed: of the run.
            rows: labelled images of the pool.
            count: how many images to pick.
            scored: the current model's scores.
            progress: called with the share that is done.
        """
        watch = Stopwatch(self._loaded.device)
        used = scored if curve.needs_scores else None
        if used is None:
            pool = unseen_pool(len(self._loaded.pool), rows)
        else:
            pool = used.scores.pool(curve.kind, rows)
            if self._keep_scores:
                file = self._folder.scores_file(curve.label, seed, len(rows))
                used.scores.save(file, curve.kind)
        file = self._folder.policy_file(curve.label, seed)
        if curve.policy == "once":
            file.parent.mkdir(exist_ok=True)
        selector = curve.selector(str(file))
        with watch.part("select"):
            # A different seed in each step, the same for all curves.
            selection = selector.select(pool, count, seed * 1_000_003 + len(rows), progress)
        seconds = watch.seconds("select")
        if used is not None:
            seconds["score"] = used.seconds["score"]
            seconds["other"] += used.seconds["other"]
        return {
            "picked": self._loaded.names(selection.indices),
            "scored": 0 if used is None else len(pool),
            "seconds": seconds,
            "warnings": list(selection.warnings),
            "report": finite(dict(selection.report)),
        }
