"""Active learning with hidden labels: train, measure, score, select, reveal, and again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from cdal.benchmark.budgets import draw_initial_set
from cdal.benchmark.chooser import Chooser, Scored, typical_images
from cdal.benchmark.curve import Curve
from cdal.benchmark.folder import SimulationFolder
from cdal.benchmark.loaded_data import LoadedData
from cdal.benchmark.progress import Progress
from cdal.benchmark.regions import LoadedRegions
from cdal.benchmark.settings import Settings
from cdal.benchmark.trainer import Trained, Trainer, new_network
from cdal.models import TaskNetwork, load_network


class Simulation:
    """All runs of all curves; finished steps are not repeated.

    A finished step is one file: how good the model is with that many labels, and which images the
    curve's selector picked with it. So resuming after a kill needs no model, except where a
    training starts from the last one's weights.

    Args:
        settings: what to simulate.
        curves: those of the settings.
        loaded: the data.
        folder: where finished steps are kept.
    """

    def __init__(
        self,
        settings: Settings,
        curves: Sequence[Curve],
        loaded: LoadedData,
        folder: SimulationFolder,
    ) -> None:
        self._settings = settings
        self._curves = curves
        self._loaded = loaded
        self._folder = folder
        self._trainer = Trainer(settings, loaded)
        self._oracle: tuple[int, TaskNetwork] | None = None
        self._chooser = Chooser(loaded, folder, self._trainer, settings.keep_scores)
        self._done = {
            (curve.label, seed): folder.count_steps(curve.label, seed, settings.budgets)
            for curve in curves
            for seed in range(settings.seeds)
        }
        self._progress = Progress(self._work_left())
        self._selecting: dict[str, list[float]] = {curve.label: [] for curve in curves}

    def run(self) -> None:
        """Do all steps that are not done yet.

        Raises:
            BenchmarkError: the initial set cannot be drawn.
            ModelError: a training failed.
            PoolError: a selector cannot use the models' scores.
        """
        for seed in range(self._settings.seeds):
            self._begin(seed)
            for curve in self._curves:
                self._go_on(curve, seed)
        self._folder.forget_models()

    def steps_done(self) -> tuple[int, int]:
        """The number of finished steps, and of all steps."""
        return sum(self._done.values()), len(self._settings.budgets) * len(self._done)

    def _begin(self, seed: int) -> None:
        """The first step of all curves, which share one model and its scores of the pool."""
        curves = [curve for curve in self._curves if not self._done[curve.label, seed]]
        if not curves:
            return
        budget, kept = self._settings.budgets[0], self._folder.shared_model(f"seed{seed}")
        text = f"seed {seed}, initial set"
        rows = self._initial_set(budget, seed)
        trained = Trained.load(kept, self._loaded.device)
        if trained is None:
            progress = self._progress_of(f"{text}, training", self._trainer.work(budget))
            trained = self._trainer.train(rows, seed, progress)
            self._save(trained, kept)
        scored = self._score(curves, trained.network, seed, text, budget)
        work = self._trainer.work(budget)
        for curve in curves:
            # Left by a process that ended before it wrote this step.
            self._folder.policy_file(curve.label, seed).unlink(missing_ok=True)
            self._finish(curve, seed, rows, trained, scored, work, drawn=rows)
            work = 0.0

    def _initial_set(self, budget: int, seed: int) -> list[int]:
        """The rows of the images or regions that are labelled first."""
        if isinstance(self._loaded.pool, LoadedRegions):
            return self._loaded.pool.whole_images(budget, seed)
        if self._settings.first_round == "random":
            return draw_initial_set(self._loaded.counts, budget, seed, self._settings.bias)
        network = new_network(self._settings, self._loaded.data.classes, self._loaded.device, seed)
        return typical_images(self._loaded, network, budget, seed)

    def _go_on(self, curve: Curve, seed: int) -> None:
        """The remaining steps of one run."""
        steps = self._folder.steps(curve.label, seed, self._settings.budgets)
        last = steps[-1]
        names = [*steps[0]["drawn"], *(name for s in steps[:-1] for name in s["next"]["picked"])]
        rows = [self._loaded.row_of[name] for name in names]
        for before, budget in pairwise(self._settings.budgets[len(steps) - 1 :]):
            rows += [self._loaded.row_of[name] for name in last["next"]["picked"]]
            text = f"seed {seed}, {curve.label}, {budget} labels"
            work = self._trainer.work(budget)
            kept = self._folder.model_of(curve.label, seed, before)
            start = None
            if self._settings.warm_start:
                start = load_network(self._folder.model(kept), self._loaded.device)
            progress = self._progress_of(f"{text}, training", work)
            trained = self._trainer.train(rows, seed, progress, start)
            scored = self._score([curve], trained.network, seed, text, budget)
            last = self._finish(curve, seed, rows, trained, scored, work)
            self._folder.forget_model(kept)

    def _score(
        self, curves: Sequence[Curve], network: TaskNetwork, seed: int, text: str, budget: int
    ) -> Scored | None:
        if budget == self._settings.budgets[-1]:
            return None  # nothing is picked after the last step
        if self._settings.oracle and any(curve.needs_scores for curve in curves):
            network = self._oracle_network(seed)
        return self._chooser.score(curves, network, self._progress_of(f"{text}, scoring"))

    def _oracle_network(self, seed: int) -> TaskNetwork:
        """A network trained on all labels of the pool; one per seed."""
        if self._oracle is None or self._oracle[0] != seed:
            kept = self._oracle_place(seed)
            trained = Trained.load(kept, self._loaded.device)
            if trained is None:
                rows = range(len(self._loaded.pool))
                work = self._trainer.work(len(rows))
                text = f"seed {seed}, oracle"
                progress = self._progress_of(f"{text}, training", work)
                trained = self._trainer.train(rows, seed, progress)
                self._save(trained, kept)
                self._progress.finished(f"{text}: {_quality(trained)}", work)
            self._oracle = seed, trained.network
        return self._oracle[1]

    def _finish(
        self,
        curve: Curve,
        seed: int,
        rows: Sequence[int],
        trained: Trained,
        scored: Scored | None,
        work: float,
        drawn: Sequence[int] = (),
    ) -> dict[str, Any]:
        """Pick the next images and keep the step; ``folder.py`` turns steps into results."""
        choice = None
        further = [budget for budget in self._settings.budgets if budget > len(rows)]
        if further:
            progress = self._progress_of(
                f"seed {seed}, {curve.label}, selecting with {len(rows)} labels"
            )
            count = further[0] - len(rows)
            choice = self._chooser.choose(curve, seed, rows, count, scored, progress)
            self._selecting[curve.label].append(choice["seconds"]["select"])
            if self._settings.warm_start:
                name = self._folder.model_of(curve.label, seed, len(rows))
                self._save(trained, self._folder.model(name))
        step = {
            "selector": curve.label,
            "seed": seed,
            "labelled": len(rows),
            "drawn": self._loaded.names(list(drawn)),
            **trained.results,
            "seconds": trained.seconds,
            "next": choice,
        }
        self._folder.write_step(curve.label, seed, len(rows), step)
        self._done[curve.label, seed] += 1
        self._progress.finished(
            f"seed {seed}, {curve.label}, {len(rows)} labels: {_quality(trained)}",
            work,
            0.0 if choice is None else choice["seconds"]["select"],
            self._selecting_left(),
        )
        return step

    def _save(self, trained: Trained, place: Path) -> None:
        """Keep a model, replacing what an ended process left there."""
        shutil.rmtree(place, ignore_errors=True)
        trained.save(place)

    def _oracle_place(self, seed: int) -> Path:
        return self._folder.shared_model(f"seed{seed}-oracle")

    def _progress_of(self, text: str, work: float = 0.0) -> Callable[[float], None]:
        return lambda share: self._progress.under_way(text, share, work)

    def _selecting_left(self) -> float:
        """Seconds that selecting will still take, as far as known: CDAL-RL trains a policy."""
        total = 0.0
        for curve in self._curves:
            known = self._selecting[curve.label]
            for seed in range(self._settings.seeds) if known else ():
                left = len(self._settings.budgets) - 1 - self._done[curve.label, seed]
                total += fmean(known) * max(0, left)
        return total

    def _work_left(self) -> float:
        """The work of all steps that are not done; a seed's first steps share one training."""
        total = 0.0
        for seed in range(self._settings.seeds):
            done = [self._done[curve.label, seed] for curve in self._curves]
            total += self._trainer.work(self._settings.budgets[0]) if 0 in done else 0.0
            for count in done:
                total += sum(map(self._trainer.work, self._settings.budgets[max(1, count) :]))
            if self._settings.oracle and not self._oracle_place(seed).exists():
                total += self._trainer.work(len(self._loaded.pool))
        return max(1.0, total)


def _quality(trained: Trained) -> str:
    """The main metric, as text."""
    name = trained.results["metrics"]["main_name"]
    value = trained.results["metrics"]["values"][name]
    return f"{name} {'unknown' if value is None else f'{value:.4f}'}"
