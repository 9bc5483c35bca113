"""A loss predictor beside small networks of each task."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cdal.models import ModelError, Recipe, TaskNetwork, fit, make_network
from cdal.models.learning_loss import LossPredictor, ranking_loss

SIDE = 64
BOX = [[8.0, 8.0, 40.0, 40.0, 1.0]]


class Pair:
    """Two images of noise with their targets."""

    def __init__(self, targets: list[Tensor]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(
            0, 256, (len(targets), 3, SIDE, SIDE), generator=generator, dtype=torch.uint8
        )
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int, /) -> tuple[Tensor, Tensor]:
        return self.images[index], self.targets[index]


def data_for(task: str) -> Pair:
    if task == "classification":
        return Pair([torch.tensor(0), torch.tensor(1)])
    if task == "segmentation":
        mask = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
        mask[:, 32:] = 1
        return Pair([mask, 1 - mask])
    return Pair([torch.tensor(BOX), torch.zeros(0, 5)])


def small(task: str) -> TaskNetwork:
    name = {
        "classification": "mobilenet_v3_small",
        "segmentation": "lraspp_mobilenet_v3_large",
        "detection": "ssdlite320_mobilenet_v3_large",
    }[task]
    return make_network(task, name, ("a", "b"), SIDE, pretrained=False)


def test_the_ranking_loss_is_that_of_equation_2() -> None:
    real = torch.tensor([1.0, 5.0, 2.0, 9.0, 3.0])
    # Pairs: 1.0 and 3.0, of which the prediction has the order and 0.5 between them; 5.0 and 9.0,
    # in the wrong order, 2 apart. 2.0 is left over.
    predicted = torch.tensor([0.0, 3.0, 7.0, 1.0, 0.5])
    assert float(ranking_loss(predicted, real)) == pytest.approx((0.5 + 3.0) / 2)
    assert float(ranking_loss(predicted[:1], real[:1])) == 0


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "segmentation", "detection"])
def test_it_learns_beside_a_network_of_each_task(task: str) -> None:
    network = small(task)
    with LossPredictor(network, seed=1) as predictor:
        before = {name: value.clone() for name, value in predictor.module.state_dict().items()}
        recipe = Recipe(epochs=2, batch_size=2, augmentation=False)
        fit(network, data_for(task), None, recipe, companion=predictor)
        losses = predictor.image_losses(data_for(task).targets)
        assert losses.shape == (2,)
        assert bool(losses.isfinite().all())
        assert bool((losses > 0).all())
        network.predict(data_for(task).images)
        assert predictor.predicted().shape == (2,)
    after = predictor.module.state_dict()
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_the_loss_of_an_image_is_the_tasks() -> None:
    network = small("classification")
    images, targets = data_for("classification").images, [torch.tensor(0), torch.tensor(1)]
    with LossPredictor(network) as predictor:
        probabilities = network.predict(images).regions
        losses = predictor.image_losses(targets)
    assert isinstance(probabilities, Tensor)
    assert losses.tolist() == pytest.approx((-probabilities[[0, 1], [0, 1]].log()).tolist())


def test_late_in_the_training_the_network_is_left_alone() -> None:
    network = small("classification")
    targets = [torch.tensor(0), torch.tensor(1)]
    for share, reached in ((0.5, True), (0.6, False)):
        with LossPredictor(network) as predictor:
            network.module(network.normalise(data_for("classification").images))
            network.module.zero_grad()
            torch.autograd.backward(predictor.loss(targets, share))
        own = [p.grad for p in network.module.parameters() if p.grad is not None]
        assert any(bool(grad.any()) for grad in own) == reached


def test_a_detector_of_another_family_is_refused() -> None:
    network = make_network(
        "detection", "fasterrcnn_mobilenet_v3_large_fpn", ("a", "b"), SIDE, pretrained=False
    )
    with pytest.raises(ModelError, match="needs an SSD"):
        LossPredictor(network)
