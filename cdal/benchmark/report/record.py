"""The recorded results of a benchmark, as its report needs them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdal.benchmark.errors import BenchmarkError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Step:
    """The images labelled in one step, and the model trained on all labels so far.

    Attributes:
        labelled: number of images the model was trained on.
        value: its main metric on the test images; None if undefined.
        per_class: scores by class name; None for a class without test images.
        picked: names of the images labelled in this step, in order; in the first step, the
            initial set.
        seconds: wall clock by part: "train", "score", "select", "evaluate" and "other".
        images: how many were "trained" on, counted once per epoch, and "scored".
        warnings: of the selector or the training.
    """

    labelled: int
    value: float | None
    per_class: Mapping[str, float | None]
    picked: tuple[str, ...]
    seconds: Mapping[str, float]
    images: Mapping[str, int]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One selector with one seed, as far as it is done; steps by number of labels."""

    selector: str
    seed: int
    steps: tuple[Step, ...]

    @property
    def last(self) -> int:
        """Labels at the last step; 0 before the first."""
        return self.steps[-1].labelled if self.steps else 0

    @property
    def curve(self) -> dict[int, float]:
        """The main metric by number of labels."""
        return {step.labelled: step.value for step in self.steps if step.value is not None}


@dataclass(frozen=True, slots=True)
class Record:
    """A whole benchmark.

    Attributes:
        settings: of the benchmark; JSON data.
        dataset: "task", "classes", "pool", "test" and more; JSON data.
        machine: JSON data.
        metric: name of the main metric; higher is better.
        runs: in the order of the file.
    """

    settings: Mapping[str, Any]
    dataset: Mapping[str, Any]
    machine: Mapping[str, Any]
    metric: str
    runs: tuple[Run, ...]

    @property
    def selectors(self) -> tuple[str, ...]:
        """Labels of the selectors, in order of appearance."""
        return tuple(dict.fromkeys(run.selector for run in self.runs))

    @property
    def budgets(self) -> tuple[int, ...]:
        """Every number of labels at which a model was measured, ascending."""
        return tuple(sorted({step.labelled for run in self.runs for step in run.steps}))

    @property
    def pool(self) -> int:
        """Number of images that can be labelled."""
        return int(self.dataset["pool"])

    def of(self, selector: str) -> dict[int, Run]:
        """The runs of a selector by seed."""
        return {run.seed: run for run in self.runs if run.selector == selector}

    def complete(self, selector: str) -> dict[int, Run]:
        """The selector's runs that reached the last budget that any run reached, by seed."""
        last = self.budgets[-1] if self.budgets else 0
        return {seed: run for seed, run in self.of(selector).items() if last in run.curve}


def read_record(path: Path) -> Record:
    """Read a ``results.json``, finished or not.

    Raises:
        BenchmarkError: it is missing, or is not a ``results.json``.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise BenchmarkError(f"{path} is not JSON: {error}.") from error
    return parse_record(data, str(path))


def parse_record(data: Any, name: str = "The data") -> Record:
    """Parse the content of a ``results.json``.

    Raises:
        BenchmarkError: an entry is missing or has the wrong type.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise BenchmarkError(f"{name} does not hold benchmark results in format {FORMAT}.")
    try:
        names = {step["metrics"]["main_name"] for run in data["runs"] for step in run["steps"]}
        if len(names) > 1:
            raise BenchmarkError(f"{name} mixes the metrics {', '.join(sorted(names))}.")
        return Record(
            settings=dict(data["settings"]),
            dataset=_dataset(data["dataset"]),
            machine=dict(data["machine"]),
            metric=next(iter(names), "metric"),
            runs=tuple(_run(run) for run in data["runs"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise BenchmarkError(f"{name} has a missing or malformed entry: {error}.") from error


def _dataset(data: Mapping[str, Any]) -> dict[str, Any]:
    for entry, kind in {"task": str, "classes": list, "pool": int, "test": int}.items():
        if not isinstance(data[entry], kind):
            raise TypeError(f"dataset's {entry} is {data[entry]!r}")
    return dict(data)


def _run(data: Mapping[str, Any]) -> Run:
    steps = sorted((_step(step) for step in data["steps"]), key=lambda step: step.labelled)
    return Run(str(data["selector"]), int(data["seed"]), tuple(steps))


def _step(data: Mapping[str, Any]) -> Step:
    metrics = data["metrics"]
    return Step(
        labelled=int(data["labelled"]),
        value=_number(metrics["values"].get(metrics["main_name"])),
        per_class={
            str(name): _number(score["score"])
            for name, score in metrics.get("per_class", {}).items()
        },
        picked=tuple(str(name) for name in data.get("picked", ())),
        seconds={part: float(value) for part, value in data.get("seconds", {}).items()},
        images={part: int(value) for part, value in data.get("images", {}).items()},
        warnings=tuple(str(warning) for warning in data.get("warnings", ())),
    )


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    return float(value) if value is not None and math.isfinite(value) else None
