from __future__ import annotations

import pytest
from support.colours import Colours, small_network

from cdal.models import ClassificationNetwork, FitReport, Recipe, fit


@pytest.fixture(scope="session")
def trained() -> tuple[ClassificationNetwork, FitReport]:
    """A network that knows red, green and blue (do not change it), and its training report."""
    network = small_network(("red", "green", "blue"))
    data, held_out = Colours([0, 1, 2] * 8), Colours([0, 1, 2] * 2, seed=1)
    return network, fit(network, data, held_out, Recipe(epochs=25, batch_size=8))
