from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.colours import Colours

from cdal.models import Recipe, fit, load_network, make_network

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_trains_in_mixed_precision_and_predicts_the_same_on_the_cpu(tmp_path: Path) -> None:
    network = make_network(
        architecture="resnet18",
        classes=("red", "green", "blue"),
        image_size=32,
        device=torch.device("cuda"),
        pretrained=False,
    )
    data = Colours([0, 1, 2] * 8)
    report = fit(network, data, Colours([0, 1, 2] * 2, seed=1), Recipe(epochs=25, batch_size=8))
    assert report.plan.mixed_precision
    assert network.evaluate(Colours([0, 1, 2] * 4, seed=2)).main >= 0.9
    network.save(tmp_path / "version")
    on_cpu = load_network(tmp_path / "version", torch.device("cpu"))
    batch = torch.stack(data.images)
    on_cuda = network.predict(batch)
    assert on_cuda.probabilities.device.type == "cuda"
    # bfloat16 has 8 bits of precision.
    assert torch.allclose(
        on_cpu.predict(batch).probabilities, on_cuda.probabilities.cpu(), atol=0.05
    )
