"""The examples of docs/adding-a-network.md work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cdal.models import ARCHITECTURES, Recipe, fit, load_network, make_network
from cdal.models.classification.architectures import CLASSIFIERS, ClassifierEntry
from cdal.models.detection.architectures import DETECTORS, DetectorEntry
from cdal.models.detection.pyramid import RetinaNet
from cdal.models.segmentation.architectures import SEGMENTERS, SegmenterEntry

DOCS = Path(__file__).parents[2] / "docs" / "adding-a-network.md"

NAMES: dict[str, Any] = {
    "ClassifierEntry": ClassifierEntry,
    "DetectorEntry": DetectorEntry,
    "RetinaNet": RetinaNet,
    "SegmenterEntry": SegmenterEntry,
}

TABLES: dict[str, Any] = {
    "classification": CLASSIFIERS,
    "segmentation": SEGMENTERS,
    "detection": DETECTORS,
}

SIDE = 64


def documented() -> dict[str, Any]:
    """The entries in the document, by name."""
    block = re.search(r"```python\n(# CLASSIFIERS.*?)```", DOCS.read_text(), re.DOTALL)
    assert block is not None
    entries: dict[str, Any] = eval("{" + block[1] + "}", NAMES)
    return entries


class Halves:
    """Images with a bright left half, which is class 0 in every task."""

    def __init__(self, task: str) -> None:
        self._target: dict[str, Tensor] = {
            "classification": torch.tensor(0),
            "segmentation": (torch.arange(SIDE) >= SIDE // 2).to(torch.uint8).repeat(SIDE, 1),
            "detection": torch.tensor([[0.0, 0.0, SIDE / 2, SIDE, 0.0]]),
        }
        self._task = task

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = torch.full((3, SIDE, SIDE), 20 + index, dtype=torch.uint8)
        image[:, :, : SIDE // 2] = 200
        return image, self._target[self._task]


@pytest.mark.parametrize(
    ("task", "name"), list(zip(TABLES, documented(), strict=True)), ids=list(documented())
)
def test_a_new_network_takes_one_line(
    task: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert name not in ARCHITECTURES[task]
    monkeypatch.setitem(TABLES[task], name, documented()[name])
    network = make_network(task, name, classes=("left", "right"), image_size=SIDE, pretrained=False)
    data = Halves(task)
    report = fit(network, data, data, Recipe(epochs=2))
    assert report.metrics is not None
    network.save(tmp_path / "version")
    loaded = load_network(tmp_path / "version", network.device)
    assert loaded.manifest.architecture == name
    assert loaded.evaluate(data).main == pytest.approx(report.metrics.main)
    assert len(loaded.predict(torch.stack([data[0][0]])).findings()) == 1


def test_every_table_is_in_the_registry() -> None:
    assert {**TABLES, "multilabel": CLASSIFIERS} == ARCHITECTURES
