"""The folder of a simulation: its settings, one file per finished step, and its results."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.settings import Settings

FORMAT = 1

Json = dict[str, Any]


class SimulationFolder:
    """Files below one path. Each is complete or absent, whenever the process ends.

    Args:
        path: created if necessary.

    Raises:
        BenchmarkError: it cannot be created, or is a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            for folder in (path, path / "steps"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BenchmarkError(f"{path} cannot be written to: {error.strerror}.") from error

    def begin(self, settings: Settings) -> None:
        """Write the settings, or check that they continue the simulation in the folder.

        Raises:
            BenchmarkError: the folder holds a simulation with other settings, or other files.
        """
        file = self.path / "settings.json"
        if file.exists():
            before = read_json(file)
            if any((self.path / "steps").glob("*.json")):
                settings.check_continues(before, str(self.path))
            elif settings.differences(before):
                # No step is finished, so there is nothing to resume.
                for kept in ("models", "shared", "scores", "policies"):
                    shutil.rmtree(self.path / kept, ignore_errors=True)
        write_json(file, settings.to_dict())

    def steps(self, label: str, seed: int, budgets: Sequence[int]) -> list[Json]:
        """The finished steps of a run, from the first, as given to ``write_step``."""
        found = []
        for labelled in budgets:
            file = self._step(label, seed, labelled)
            if not file.exists():
                break
            found.append(read_json(file))
        return found

    def count_steps(self, label: str, seed: int, budgets: Sequence[int]) -> int:
        """The number of finished steps of a run, without reading them."""
        files = (self._step(label, seed, labelled) for labelled in budgets)
        return sum(1 for _ in takewhile(Path.exists, files))

    def write_step(self, label: str, seed: int, labelled: int, step: Json) -> None:
        """Keep a finished step."""
        write_json(self._step(label, seed, labelled), step)

    def policy_file(self, label: str, seed: int) -> Path:
        """Where a policy that is trained once is kept."""
        return self.path / "policies" / f"{_run(label, seed)}.safetensors"

    def scores_file(self, label: str, seed: int, labelled: int) -> Path:
        """Where a model's scores of the pool are kept."""
        return self.path / "scores" / f"{_run(label, seed)}-{labelled:06}.safetensors"

    def shared_model(self, name: str) -> Path:
        """Where a model is kept that all selectors of a seed share, including later ones."""
        (self.path / "shared").mkdir(exist_ok=True)
        return self.path / "shared" / name

    def model(self, name: str) -> Path:
        """Where a model of a single run is kept until its next step is finished."""
        (self.path / "models").mkdir(exist_ok=True)
        return self.path / "models" / name

    def forget_model(self, name: str) -> None:
        """Remove the model of a single run."""
        shutil.rmtree(self.path / "models" / name, ignore_errors=True)

    def forget_models(self) -> None:
        """Remove the models of all single runs."""
        shutil.rmtree(self.path / "models", ignore_errors=True)

    def model_of(self, label: str, seed: int, labelled: int) -> str:
        """The name of a run's model."""
        return f"{_run(label, seed)}-{labelled:06}"

    def write_images(
        self, pool: Sequence[str], test: Sequence[str], counts: Sequence[Mapping[int, int]]
    ) -> None:
        """Keep the images' names, and how often each class occurs in them.

        Args:
            pool: names; rows of scores are in this order.
            test: names.
            counts: for each image of the pool, the count of each class that occurs in it.
        """
        data = {"pool": list(pool), "test": list(test), "counts": [dict(row) for row in counts]}
        write_json(self.path / "images.json", data)

    def read_counts(self) -> dict[str, dict[int, int]]:
        """For each image of the pool, by name: the count of each class that occurs in it."""
        file = self.path / "images.json"
        images = read_json(file) if file.exists() else {}
        found = zip(images.get("pool", ()), images.get("counts", ()), strict=False)
        return {name: {int(c): n for c, n in row.items()} for name, row in found}

    def write_results(
        self, settings: Settings, dataset: Mapping[str, Any], machine: Mapping[str, Any]
    ) -> Path:
        """Collect the finished steps in ``results.json``; runs by selector, then by seed."""
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
    """Each step with the choice that led to it, which is in the previous step's file."""
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
    """A unique file name for each run."""
    return f"seed{seed}-{quote(label, safe='=,+')}"


def read_json(file: Path) -> Json:
    """Read a file that this module wrote.

    Raises:
        BenchmarkError: it cannot be read, or is not JSON.
    """
    try:
        data: Json = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{file} cannot be read; remove it, or use another --out.") from error
    return data


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Write a complete file or none."""
    text = json.dumps(data, indent=1, allow_nan=False)
    new = file.with_name(f"{file.name}.new")
    new.write_text(text + "\n", encoding="utf-8")
    new.replace(file)


def finite(data: Any) -> Any:
    """The same JSON data, with None for NaN and infinity."""
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, dict):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data
