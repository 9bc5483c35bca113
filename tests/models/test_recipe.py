from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from cdal.models import ClassificationNetwork, ModelError, Recipe
from cdal.models.recipe import default_epochs, learning_rate_share

CPU = torch.device("cpu")
DEFAULTS = ClassificationNetwork.defaults


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be positive; it is 0."),
        ({"batch_size": -1}, "batch_size must be positive; it is -1."),
        ({"learning_rate": math.nan}, "learning_rate must be positive; it is nan."),
        ({"warmup": 1.5}, "warmup must lie in [0, 1]; it is 1.5."),
        ({"label_smoothing": math.nan}, "label_smoothing must lie in [0, 1]; it is nan."),
        ({"weight_decay": -1.0}, "weight_decay must not be negative; it is -1.0."),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as error:
        Recipe(**changes)
    assert message in str(error.value)


def test_a_plan_follows_the_recipe() -> None:
    recipe = Recipe(epochs=8, batch_size=10, learning_rate=0.5)
    plan = recipe.plan(25, CPU, image_size=64, pretrained=False, defaults=DEFAULTS)
    assert (plan.epochs, plan.batch_size, plan.learning_rate) == (8, 10, 0.5)
    assert (plan.steps_per_epoch, plan.steps) == (3, 24)
    assert not plan.mixed_precision


def test_pretrained_weights_have_a_lower_learning_rate() -> None:
    scratch = Recipe().plan(100, CPU, 64, pretrained=False, defaults=DEFAULTS)
    tuned = Recipe().plan(100, CPU, 64, pretrained=True, defaults=DEFAULTS)
    assert tuned.learning_rate < scratch.learning_rate


def test_a_larger_set_needs_fewer_epochs() -> None:
    epochs = [default_epochs(images, 32, DEFAULTS) for images in (1, 100, 1000, 10_000, 1_000_000)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] >= 1


def test_learning_rate_rises_linearly_and_falls_like_a_cosine() -> None:
    shares = [learning_rate_share(step, steps=12, warmup=1 / 6) for step in range(13)]
    assert shares[:3] == [0.5, 1.0, 1.0]
    assert shares[7] == pytest.approx(0.5)
    assert shares[12] == pytest.approx(0.0)
    assert shares[2:] == sorted(shares[2:], reverse=True)


def test_learning_rate_of_a_single_step() -> None:
    assert learning_rate_share(0, steps=1, warmup=0.1) == 1.0


def test_label_smoothing_is_the_tasks_unless_given() -> None:
    assert Recipe().smoothing(DEFAULTS) == 0.1
    assert Recipe(label_smoothing=0.0).smoothing(DEFAULTS) == 0.0
