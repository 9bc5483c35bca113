from __future__ import annotations

import os
from pathlib import Path

import pytest
from colours import Colours, small_network

from cdal.models import ClassificationNetwork, FitReport, Recipe


@pytest.fixture
def cifar10() -> Path:
    path = Path(__file__).parents[2] / "../shared/data/cifar10.zip"
    if not path.is_file():
        if os.environ.get("CI"):
            pytest.fail(f"{path} is missing")
        pytest.skip(f"{path} is missing")
    return path


@pytest.fixture(scope="session")
def trained() -> tuple[ClassificationNetwork, FitReport]:
    """A network that knows red, green and blue, not to be changed, and how it learnt them."""
    network = small_network(("red", "green", "blue"))
    data, held_out = Colours([0, 1, 2] * 8), Colours([0, 1, 2] * 2, seed=1)
    return network, network.fit(data, held_out, Recipe(epochs=25, batch_size=8))
