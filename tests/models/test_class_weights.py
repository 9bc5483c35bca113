"""Class weights: rare classes weigh more in the loss, but do not dominate it."""

from __future__ import annotations

import pytest
import torch

from cdal.models.recipe import class_weights


def test_weights_fall_with_the_root_of_the_frequency() -> None:
    weights = class_weights(torch.tensor([100.0, 400.0]).double())
    assert float(weights[0] / weights[1]) == pytest.approx(2)
    assert float((weights * torch.tensor([100, 400])).sum()) == pytest.approx(500)


def test_weights_fall_with_another_power() -> None:
    assert class_weights(torch.tensor([3, 1]), 1.0).tolist() == pytest.approx([2 / 3, 2.0])
    assert class_weights(torch.tensor([3, 1]), 0.0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_a_class_that_never_occurs_has_no_weight(power: float) -> None:
    assert class_weights(torch.tensor([0, 9, 0]), power).tolist() == [0, 1, 0]
