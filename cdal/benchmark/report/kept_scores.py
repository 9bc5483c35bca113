"""What the models of a simulation said of the pool, where that was kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from cdal.benchmark.errors import BenchmarkError
from cdal.benchmark.folder import SimulationFolder, read_json


@dataclass(frozen=True, slots=True, eq=False)
class KeptScores:
    """Of the N images of a pool, by one model.

    Attributes:
        rows: the row of each image by its name.
        features: (N, D) float32.
        mixtures: (N, R, C) float32.
        present: (N, R) bool.
    """

    rows: Mapping[str, int]
    features: NDArray[np.float32]
    mixtures: NDArray[np.float32]
    present: NDArray[np.bool_]


def read_scores(folder: Path, selector: str, seed: int, labelled: int) -> KeptScores | None:
    """What a run's model that was trained on so many labels said; None where it was not kept.

    Raises:
        BenchmarkError: a file is damaged, or does not belong to the others.
    """
    file = SimulationFolder(folder).scores_file(selector, seed, labelled)
    if not file.exists():
        return None
    names = read_json(folder / "images.json").get("pool", [])
    try:
        arrays = load_file(file)
        scores = KeptScores(
            {name: row for row, name in enumerate(names)},
            arrays["features"],
            arrays["mixtures"],
            arrays["present"],
        )
    except (SafetensorError, KeyError) as error:
        raise BenchmarkError(f"{file} is damaged: {error}.") from error
    if not len(names) == len(scores.features) == len(scores.mixtures) == len(scores.present):
        raise BenchmarkError(f"{file} is not of the images that {folder}/images.json names.")
    return scores
