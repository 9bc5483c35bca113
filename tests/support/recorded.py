"""Small benchmark results, made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cdal.benchmark.settings import Settings

Heights = Mapping[int, float]


def step(
    labelled: int,
    value: float,
    picked: Sequence[str] = (),
    per_class: Mapping[str, float | None] | None = None,
    metric: str = "accuracy",
    **more: Any,
) -> dict[str, Any]:
    classes = {"cat": value, "dog": value} if per_class is None else per_class
    return {
        "labelled": labelled,
        "metrics": {
            "main_name": metric,
            "values": {metric: value, "loss": 1.0},
            "per_class": {name: {"count": 5, "score": score} for name, score in classes.items()},
        },
        "picked": list(picked),
        "seconds": {"train": 6.0, "score": 2.0, "select": 1.0, "evaluate": 0.5, "other": 0.5},
        "images": {"trained": 600, "scored": 100},
        "warnings": [],
        "report": {},
        **more,
    }


def run(selector: str, seed: int, heights: Heights) -> dict[str, Any]:
    """A run that picks as many images at each step as its labels rise, with unique names."""
    steps, before = [], 0
    for labelled, value in heights.items():
        names = [f"{selector}-{number}.png" for number in range(before, labelled)]
        steps.append(step(labelled, value, names))
        before = labelled
    return {"selector": selector, "seed": seed, "steps": steps}


def results(runs: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "settings": {"dataset": "data/animals", "seeds": 2, "selectors": ["random", "cdal-cs"]},
        "dataset": {"task": "classification", "classes": ["cat", "dog"], "pool": 100, "test": 10},
        "machine": {"cores": 2},
        "runs": list(runs),
        **more,
    }


def two_selectors() -> dict[str, Any]:
    """Two seeds each: random 50, 60, 70 and 52, 62, 76; CDAL-CS 50, 70, 80 and 52, 76, 82.

    The means are 51, 61, 73 and 51, 73, 81 per cent: CDAL-CS has at 20 labels what random has at
    30. The areas are 60, 63 and 67.5, 71.5.
    """
    return results(
        [
            run("random", 0, {10: 0.50, 20: 0.60, 30: 0.70}),
            run("random", 1, {10: 0.52, 20: 0.62, 30: 0.76}),
            run("cdal-cs", 0, {10: 0.50, 20: 0.70, 30: 0.80}),
            run("cdal-cs", 1, {10: 0.52, 20: 0.76, 30: 0.82}),
        ]
    )


def write(folder: Path, data: Mapping[str, Any]) -> Path:
    (folder / "results.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


SETTINGS = Settings(
    dataset="images.zip",
    images="0123",
    task="classification",
    protocol=None,
    selectors=("random", "cdal-cs"),
    options={"missing": "skip"},
    initial="10%",
    step="5%",
    until="20%",
    budgets=(10, 15, 20),
    seeds=3,
    network="resnet18",
    image_size=32,
    pretrained=False,
    epochs=None,
    batch_size=None,
    learning_rate=None,
    warm_start=False,
    device="cpu",
    limit=None,
    test_limit=None,
    first_round="random",
    bias=0,
    noise=0.0,
    unlabelled="ignore",
    keep_scores=False,
    oracle=False,
)
