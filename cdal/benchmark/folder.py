"""The folder of a simulation: its settings, a file for each finished step, and its results."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.settings import Settings

FORMAT = 1

Json = dict[str, Any]


class SimulationFolder:
    """Files below one path. Each is whole or not there, whenever the process ends.

    Args:
        path: is made, if need be.

    Raises:
        BenchmarkError: it cannot be made, or is a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            for folder in (path, path / "steps"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BenchmarkError(f"{path} cannot be written to: {error.strerror}.") from error

    def begin(self, settings: Settings) -> None:
        """Write down what is to be done, or check that it goes on with what was begun.

        Raises:
            BenchmarkError: the folder holds a simulation with other settings, or something else.
        """
        file = self.path / "settings.json"
        if file.exists():
            before = read_json(file)
            if any((self.path / "steps").glob("*.json")):
                settings.check_goes_on(before, str(self.path))
            elif settings.differences(before):
                # No step is finished, so there is nothing to go on with.
                for kept in ("models", "shared", "scores", "policies"):
                    shutil.rmtree(self.path / kept, ignore_errors=True)
        write_json(file, settings.to_dict())

    def steps(self, label: str, seed: int, budgets: Sequence[int]) -> list[Json]:
        """The finished steps of a run, from the first, as ``write_step`` was given them."""
        found = []
        for labelled in budgets:
            file = self._step(label, seed, labelled)
            if not file.exists():
                break
            found.append(read_json(file))
        return found

    def write_step(self, label: str, seed: int, labelled: int, step: Json) -> None:
        """Keep a finished step."""
        write_json(self._step(label, seed, labelled), step)

    def policy_file(self, label: str, seed: int) -> Path:
        """Where a policy that is trained once is kept."""
        return self.path / "policies" / f"{_run(label, seed)}.safetensors"

    def scores_file(self, label: str, seed: int, labelled: int) -> Path:
        """Where what a model says of the pool is kept."""
        return self.path / "scores" / f"{_run(label, seed)}-{labelled:06}.safetensors"

    def shared_model(self, name: str) -> Path:
        """Where a model is kept that all selectors of a seed share, those added later, too."""
        (self.path / "shared").mkdir(exist_ok=True)
        return self.path / "shared" / name

    def model(self, name: str) -> Path:
        """A new place for a model of a single run that is needed until a step is finished."""
        (self.path / "models").mkdir(exist_ok=True)
        return self.path / "models" / name

    def forget_model(self, name: str) -> None:
        """Remove a model."""
        shutil.rmtree(self.path / "models" / name, ignore_errors=True)

    def forget_models(self) -> None:
        """Remove all models of single runs: none is needed any more."""
        shutil.rmtree(self.path / "models", ignore_errors=True)

    def model_of(self, label: str, seed: int, labelled: int) -> str:
        """The name of a run's model."""
        return f"{_run(label, seed)}-{labelled:06}"

    def write_images(
        self, pool: Sequence[str], test: Sequence[str], counts: Sequence[Mapping[int, int]]
    ) -> None:
        """Keep what the images are called, and what is in them.

        Args:
            pool: names; rows of scores are in this order.
            test: names.
            counts: of each image of the pool, how often which classes occur in it.
        """
        data = {"pool": list(pool), "test": list(test), "counts": [dict(row) for row in counts]}
        write_json(self.path / "images.json", data)

    def read_counts(self) -> dict[str, dict[int, int]]:
        """How often which classes occur in each image of the pool, by name."""
        file = self.path / "images.json"
        images = read_json(file) if file.exists() else {}
        found = zip(images.get("pool", ()), images.get("counts", ()), strict=False)
        return {name: {int(c): n for c, n in row.items()} for name, row in found}

    def write_results(
        self, settings: Settings, dataset: Mapping[str, Any], machine: Mapping[str, Any]
    ) -> Path:
        """Gather the finished steps into ``results.json``; runs by selector, then by seed."""
        runs = [
            {"selector": label, "seed": seed, "steps": list(_steps_of_run(steps))}
            for label in settings.selectors
            for seed in range(settings.seeds)
            if (steps := self.steps(label, seed, settings.budgets))
        ]
        file = self.path / "results.json"
        write_json(
            file,
            {
                "format": FORMAT,
                "settings": settings.to_dict(),
                "dataset": dict(dataset),
                "machine": dict(machine),
                "runs": runs,
            },
        )
        return file

    def _step(self, label: str, seed: int, labelled: int) -> Path:
        return self.path / "steps" / f"{_run(label, seed)}-{labelled:06}.json"


def _steps_of_run(steps: Iterable[Json]) -> Iterable[Json]:
    """Each step with the choice that led to it, which the file of the step before it has."""
    chosen: Json | None = None
    for step in steps:
        choice, chosen = chosen or {"picked": step["drawn"]}, step["next"]
        yield {
            "labelled": step["labelled"],
            "metrics": step["metrics"],
            "picked": choice["picked"],
            "seconds": {
                "train": step["seconds"]["train"],
                "score": choice.get("seconds", {}).get("score", 0.0),
                "select": choice.get("seconds", {}).get("select", 0.0),
                "evaluate": step["seconds"]["evaluate"],
                "other": step["seconds"]["other"] + choice.get("seconds", {}).get("other", 0.0),
            },
            "images": {"trained": step["trained"], "scored": choice.get("scored", 0)},
            "warnings": choice.get("warnings", []),
            "report": {"training": step["training"], "selection": choice.get("report", {})},
        }


def _run(label: str, seed: int) -> str:
    """A file name of its own for each run."""
    return f"seed{seed}-{quote(label, safe='=,+')}"


def read_json(file: Path) -> Json:
    """A file that this module wrote.

    Raises:
        BenchmarkError: it holds something else.
    """
    try:
        data: Json = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{file} cannot be read; remove it, or give another --out.") from error
    return data


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Write a whole file or none."""
    text = json.dumps(data, indent=1, allow_nan=False)
    new = file.with_name(f"{file.name}.new")
    new.write_text(text + "\n", encoding="utf-8")
    new.replace(file)


def finite(data: Any) -> Any:
    """JSON data, with None for numbers that JSON has not."""
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, dict):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data
