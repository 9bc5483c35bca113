"""Chooses which images are labelled next, by a network's scores of the pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cdal.benchmark.companions import companion_scores
from cdal.benchmark.curve import Curve
from cdal.benchmark.folder import SimulationFolder, finite
from cdal.benchmark.loaded_data import LoadedData, LoadedFeatures
from cdal.benchmark.opinions import opinions_about
from cdal.benchmark.regions import LoadedRegions, score_regions
from cdal.benchmark.scores import Scores, score, unseen_pool
from cdal.benchmark.stopwatch import Stopwatch
from cdal.benchmark.trainer import Trainer
from cdal.models import TaskNetwork
from cdal.models.head import HeadNetwork
from cdal.selectors.typiclust import TypiClust


@dataclass(frozen=True, slots=True)
class Scored:
    """A network's scores of the pool, and the seconds they took, by part."""

    network: TaskNetwork
    scores: Scores
    seconds: dict[str, float]


def typical_images(loaded: LoadedData, network: TaskNetwork, count: int, seed: int) -> list[int]:
    """The rows of the images that TypiClust picks before any label is there."""
    pool = loaded.pool
    if not isinstance(network, HeadNetwork) or not isinstance(pool, LoadedFeatures):
        raise TypeError("the plan lets only heads begin with typical images")
    unseen = replace(unseen_pool(len(pool), ()), features=network.vectors(pool.features).cpu())
    return TypiClust().select(unseen, count, seed).indices


class Chooser:
    """Scores the pool and selects images.

    Args:
        loaded: the data, with the pool.
        folder: where policies are kept, and scores if wanted.
        trainer: of the run, for what is trained beside a network.
        keep_scores: whether to keep the scores.
    """

    def __init__(
        self, loaded: LoadedData, folder: SimulationFolder, trainer: Trainer, keep_scores: bool
    ) -> None:
        self._loaded = loaded
        self._trainer = trainer
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
            pool = self._loaded.pool
            if isinstance(pool, LoadedRegions):
                scores = score_regions(network, pool, kinds, progress)
            else:
                scores = score(network, pool, kinds, progress)
        return Scored(network, scores, watch.seconds("score"))

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
        # A different seed in each step, the same for all curves.
        drawn = seed * 1_000_003 + len(rows)
        with watch.part("select"):
            if used is not None and curve.opinions is not None:
                found = opinions_about(
                    curve,
                    used.network,
                    used.scores,
                    self._trainer,
                    self._loaded,
                    rows,
                    drawn,
                    progress,
                )
                pool = pool.with_arrays(found)
            if curve.companion is not None:
                added = companion_scores(
                    selector, self._trainer, self._loaded, rows, seed, progress
                )
                pool = pool.with_arrays(added)
            selection = selector.select(pool, count, drawn, progress)
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
