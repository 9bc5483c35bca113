"""Networks for classes that do not exclude each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from cdal.models import (
    ModelError,
    Multilabel,
    MultilabelNetwork,
    MultilabelPrediction,
    Recipe,
    fit,
    load_network,
    make_network,
)
from cdal.models.classification.logistic import PENALTY, fit_independent

CLASSES = ("left", "right")


class Sides:
    """Grey images whose left half is red, whose right half is blue, both or none."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        there = index % 2, index // 2 % 2
        image = torch.full((3, 48, 64), 100 + index, dtype=torch.uint8)
        for side, is_there in enumerate(there):
            if is_there:
                image[:, :, 32 * side : 32 * side + 32] = 20
                image[2 * side, :, 32 * side : 32 * side + 32] = 240
        return image, torch.tensor(there, dtype=torch.float32)


def head() -> MultilabelNetwork:
    made = make_network("multilabel", classes=CLASSES, image_size=64)
    assert isinstance(made, MultilabelNetwork)
    return made


def predicted(network: MultilabelNetwork) -> MultilabelPrediction:
    data = Sides()
    batch = torch.stack([network.prepare(data[index][0]) for index in range(len(data))])
    found = network.predict(batch)
    assert isinstance(found, MultilabelPrediction)
    return found


def test_a_head_learns_each_class_by_itself(tmp_path: Path) -> None:
    network, data = head(), Sides()
    report = fit(network, data, data, Recipe())
    assert report.metrics is not None
    assert report.metrics.main_name == "macro_f1"
    assert report.metrics.values["macro_f1"] == 1
    assert {name: one.count for name, one in report.metrics.per_class.items()} == {
        "left": 8,
        "right": 8,
    }
    found = predicted(network)
    assert (
        (found.probabilities >= 0.5).float() == torch.stack([data[i][1] for i in range(16)])
    ).all()
    (none, *_, both) = found.findings()[:4]
    assert isinstance(none, Multilabel)
    assert isinstance(both, Multilabel)
    assert none.probabilities.sum() < 0.9 < 1.1 < both.probabilities.sum()
    network.save(tmp_path / "saved")
    again = load_network(tmp_path / "saved", torch.device("cpu"), ("right", "top", "left"))
    assert isinstance(again, MultilabelNetwork)
    torch.testing.assert_close(
        predicted(again).probabilities[:, [2, 0]], found.probabilities, atol=1e-4, rtol=0
    )


def test_the_metrics_are_those_of_scikit_learn() -> None:
    network, data = head(), Sides()
    torch.manual_seed(0)
    torch.nn.init.normal_(network.module.get_parameter("weight"), std=0.2)
    metrics = network.evaluate(data)
    probabilities = predicted(network).probabilities.numpy()
    there = np.array([data[i][1].numpy() for i in range(16)])
    assert metrics.values["macro_f1"] == pytest.approx(
        f1_score(there, probabilities >= 0.5, average="macro", zero_division=0)
    )
    assert metrics.values["map"] == pytest.approx(average_precision_score(there, probabilities))


def test_all_weights_of_a_network_learn() -> None:
    network = make_network(
        "multilabel", "mobilenet_v3_small", CLASSES, image_size=32, pretrained=False
    )
    before = network.evaluate(Sides()).values["loss"]
    report = fit(network, Sides(), Sides(), Recipe(epochs=3, batch_size=16))
    assert report.metrics is not None
    assert report.losses[-1] < before
    assert report.metrics.images == 16


def test_a_rare_class_is_improbable_and_one_that_no_image_has_even_more() -> None:
    draws = torch.Generator().manual_seed(0)
    features = torch.randn(200, 8, generator=draws)
    targets = torch.zeros(200, 3)
    targets[:, 0] = (torch.rand(200, generator=draws) < 0.05).float()
    targets[:, 1] = 0.25  # what a quarter of the annotators say
    found = fit_independent(features, targets)
    rare, disputed, never = (features @ found.weight.T + found.bias).sigmoid().mean(0).tolist()
    assert rare == pytest.approx(float(targets[:, 0].mean()), abs=0.01)
    assert disputed == pytest.approx(0.25, abs=0.01)
    assert 0 < never < 0.01


def test_few_images_do_not_make_it_sure() -> None:
    draws = torch.Generator().manual_seed(0)
    features = torch.randn(300, 400, generator=draws)
    logits = features @ torch.randn(400, 2, generator=draws) / 20
    targets = (torch.rand(300, 2, generator=draws) < logits.sigmoid()).float()

    def loss_of_others(penalty: float | None) -> float:
        found = fit_independent(features[:100], targets[:100], penalty)
        others = features[100:] @ found.weight.T + found.bias
        return float(binary_cross_entropy_with_logits(others, targets[100:]))

    # With 20 seeds, the difference was 0.10 to 0.19.
    assert loss_of_others(None) < loss_of_others(PENALTY) - 0.05


@pytest.mark.parametrize("target", [torch.tensor(1), torch.ones(3), torch.tensor([0.5, 1.5])])
def test_a_target_names_each_class(target: Tensor) -> None:
    with pytest.raises(ModelError, match="2 classes"):
        head().prepare_target(target, 48, 64)
