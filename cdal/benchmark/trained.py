"""A network that was trained on the labels of one step, and what is kept of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cdal.benchmark.folder import read_json, write_json
from cdal.models import FitReport, Metrics, TaskNetwork

FILE = "trained.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """A network with its quality.

    Attributes:
        network: as it was trained.
        found: "metrics" on the test images, "training", and "trained", the images that it saw,
            counted once an epoch; JSON data.
        seconds: by part.
    """

    network: TaskNetwork
    found: dict[str, Any]
    seconds: dict[str, float]

    def save(self, folder: Path) -> None:
        """Keep it in a new folder."""
        self.network.save(folder)
        # Last: a folder without it is that of a process which was ended.
        write_json(folder / FILE, {"found": self.found, "seconds": self.seconds})

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Trained | None:
        """What ``save`` kept; None where it has not or not completely."""
        if not (folder / FILE).exists():
            return None
        kept = read_json(folder / FILE)
        return cls(TaskNetwork.load(folder, device), kept["found"], kept["seconds"])


def findings(report: FitReport, metrics: Metrics) -> dict[str, Any]:
    """What is kept of a training, as JSON data."""
    told = metrics.to_dict()
    return {
        "metrics": finite({name: told[name] for name in ("main_name", "values", "per_class")}),
        "training": finite(
            {
                "epochs": report.plan.epochs,
                "batch_size": report.plan.batch_size,
                "learning_rate": report.plan.learning_rate,
                "loss": report.losses[-1],
            }
        ),
        "trained": report.images * report.plan.epochs,
    }


def finite(data: Any) -> Any:
    """JSON data, with None for numbers that JSON has not."""
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, dict):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data
